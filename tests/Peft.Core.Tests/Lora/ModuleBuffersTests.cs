using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>A copy of a module that is trained in full has buffers and settings of its own: statistics of a batch norm, the options of an embedding.</summary>
[Trait("Fault", "lora-7")]
public sealed class ModuleBuffersTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["up"], ModulesToSave = ["norm"] };

    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void Running_statistics_belong_to_the_copy_and_go_into_its_file()
    {
        using var folder = new TemporaryFolder();
        using var noGrad = no_grad();
        using var net = Net();
        var norm = (BatchNorm1d)net.named_children().Single(c => c.name == "norm").module;
        var x = randn(9, 4) * 3 + 2;
        var before = norm.state_dict().ToDictionary(s => s.Key, s => s.Value.clone());
        using (var peft = net.GetPeftModel(Config))
        {
            TinyNet.Randomise(peft);
            for (int i = 0; i < 5; i++) net.call(x);
            net.eval();
            var wanted = net.call(x);
            peft.Save(folder.Path);
            string key = "base_model.model.norm.";
            using (var files = AdapterFolder.Open(folder.Path))
            {
                Assert.Superset(new HashSet<string> { key + "weight", key + "bias", key + "running_mean", key + "running_var", key + "num_batches_tracked" }, files.Tensors.Entries.Keys.ToHashSet());
                Assert.Equal(5, files.Tensors.Load(key + "num_batches_tracked").ToInt64());
                Assert.True(files.Tensors.Load(key + "running_mean").abs().max().ToDouble() > 0.01);
            }
            peft.Unload();
            foreach (var (name, value) in norm.state_dict()) TensorAssert.Equal(before[name], value, name);
            using var again = PeftModel.Load(net, folder.Path);
            TensorAssert.Equal(wanted, net.call(x), "loaded");
            again.MergeAndUnload();
            TensorAssert.Close(wanted, net.call(x), 1e-5, 1e-5, "merged");
        }
    }

    [Fact]
    public void Copies_leave_no_tensor_behind()
    {
        using var net = Net();
        LeakGuard.AssertFlat(3, () =>
        {
            using var peft = net.GetPeftModel(Config);
        });
    }

    [Fact]
    public void A_copied_embedding_keeps_its_padding_row_and_its_norm()
    {
        using var one = new TwoTables(nn.Embedding(7, 5, padding_idx: 3, max_norm: 0.7, norm_type: 1.5, scale_grad_by_freq: true), nn.Linear(5, 2));
        using var twin = new TwoTables(nn.Embedding(7, 5, padding_idx: 3, max_norm: 0.7, norm_type: 1.5, scale_grad_by_freq: true), nn.Linear(5, 2));
        using (no_grad()) ((Embedding)twin.Table).weight!.copy_(((Embedding)one.Table).weight!);
        using var peft = one.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["head"], ModulesToSave = ["table"] });
        var ids = tensor(new long[] { 3, 1, 1, 6, 3, 0 });
        var (wanted, got) = (twin.Table.call(ids), one.Table.call(ids));
        TensorAssert.Equal(wanted, got, "rows");
        wanted.sum().backward();
        got.sum().backward();
        var trained = peft.TrainableParameters().Single(p => p.Name.Contains("table", StringComparison.Ordinal)).Parameter;
        TensorAssert.Equal(((Embedding)twin.Table).weight!.grad!, trained.grad!, "gradient");
        Assert.Equal(0, trained.grad![3].abs().max().ToDouble());
    }

    [Fact]
    public void An_embedding_without_settings_is_copied_as_one()
    {
        using var one = new TwoTables(nn.Embedding(7, 5), nn.Linear(5, 2));
        using var peft = one.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["head"], ModulesToSave = ["table"] });
        one.Table.call(tensor(new long[] { 0, 1, 1 })).sum().backward();
        var gradient = peft.TrainableParameters().Single(p => p.Name.Contains("table", StringComparison.Ordinal)).Parameter.grad!;
        Assert.Equal([1f, 2f, 0f], gradient.select(1, 0).narrow(0, 0, 3).data<float>().ToArray());
    }

    [Fact]
    public void A_padding_row_gets_no_gradient_from_LoRA_on_an_embedding()
    {
        using var one = new TwoTables(nn.Embedding(7, 5, padding_idx: 3), nn.Linear(5, 2));
        using var peft = one.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["table"] });
        TinyNet.Randomise(peft);
        one.Table.call(tensor(new long[] { 3, 1, 3 })).sum().backward();
        var gradient = peft.Layers.Single().Adapters["default"].A.grad!;
        Assert.Equal(0, gradient.select(1, 3).abs().max().ToDouble());
        Assert.True(gradient.select(1, 1).abs().max().ToDouble() > 0);
    }

    private static Sequential Net() => nn.Sequential(("up", nn.Linear(4, 6)), ("norm", nn.BatchNorm1d(6)), ("down", nn.Linear(6, 3)));

    private sealed class TwoTables : nn.Module
    {
        private nn.Module<Tensor, Tensor> table;
        private nn.Module<Tensor, Tensor> head;

        public TwoTables(nn.Module<Tensor, Tensor> table, nn.Module<Tensor, Tensor> head)
            : base(nameof(TwoTables))
        {
            this.table = table;
            this.head = head;
            RegisterComponents();
        }

        public nn.Module<Tensor, Tensor> Table => table;
    }
}
