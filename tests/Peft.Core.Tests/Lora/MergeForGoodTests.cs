using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>A merge that is not taken back, unmerging where weights are shared, and what is saved while adapters are merged.</summary>
public sealed class MergeForGoodTests : IDisposable
{
    private static readonly string Bases = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases");

    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] };

    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Theory, Trait("Fault", "lora-13")]
    [InlineData(false)]
    [InlineData(true)]
    public void A_refusal_at_the_last_layer_leaves_the_base_bit_for_bit(bool dora)
    {
        using var noGrad = no_grad();
        using var net = Stack(9);
        using var peft = net.GetPeftModel(Config with { TargetModules = TargetModules.AllLinear, UseDora = dora });
        TinyNet.Randomise(peft);
        var last = peft.Layers.Last();
        var huge = last.BaseWeight(ScalarType.Float32);
        huge[3, 5] = float.MaxValue;
        ((LoraLinear)last).BaseLayer.OverwriteWeight(huge);
        last.Adapters["default"].A.fill_(1e19f);
        last.Adapters["default"].B.fill_(1e19f);
        var before = peft.Layers.Select(l => l.BaseWeight(ScalarType.Float32)).ToList();
        Assert.Equal("Merge: 1 tensor(s) hold NaN or infinity: layer8. The adapter is broken; use an earlier checkpoint.",
            Assert.Throws<NonFiniteWeightsException>(() => peft.MergeAndUnload()).Message);
        foreach (var (layer, weight) in peft.Layers.Zip(before)) TensorAssert.Equal(weight, layer.BaseWeight(ScalarType.Float32), layer.ModulePath);
        Assert.Equal(9, peft.Layers.Count());
    }

    [Fact, Trait("Fault", "lora-13")]
    public void A_large_but_finite_sum_is_merged()
    {
        using var noGrad = no_grad();
        using var net = Stack(1);
        using var peft = net.GetPeftModel(Config with { TargetModules = TargetModules.AllLinear });
        var adapter = peft.Layers.Single().Adapters["default"];
        adapter.A.fill_(1e19f);
        adapter.B.fill_(5e18f);
        var wanted = peft.Layers.Single().BaseWeight(ScalarType.Float32) + peft.Layers.Single().DeltaWeight("default");
        peft.MergeAndUnload();
        TensorAssert.Equal(wanted, net.named_parameters().First(p => p.name == "layer0.weight").parameter, "merged");
    }

    [Fact, Trait("Fault", "lora-13")]
    public void At_most_one_layer_is_held_while_many_are_merged()
    {
        using var watched = new WatchedLinear();
        using var net = nn.Sequential([.. Enumerable.Range(0, 40).Select(i => ($"layer{i}", (nn.Module<Tensor, Tensor>)nn.Linear(9, 9))), ("watched", watched)]);
        using var peft = net.GetPeftModel(Config with { TargetModules = TargetModules.AllLinear });
        TinyNet.Randomise(peft);
        long before = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
        peft.MergeAndUnload();
        // A copy of every layer before it would be 40 weights and 40 biases.
        Assert.InRange(watched.LiveAtOverwrite - before, 0, 20);
    }

    [Theory, Trait("Fault", "lora-5")]
    [InlineData("llama", "embed_tokens")]
    [InlineData("llama", "lm_head")]
    [InlineData("llama-tied", "embed_tokens")]
    [InlineData("llama-tied", "lm_head")]
    public void What_is_saved_while_merged_is_what_is_saved_before(string kind, string target)
    {
        using var model = ReferenceModel.Load(Path.Combine(Bases, kind), "llama", ScalarType.Float32);
        using var peft = model.GetPeftModel(Config with { TargetModules = [target], EnsureWeightTying = kind == "llama-tied" });
        TinyNet.Randomise(peft);
        var wanted = peft.GetAdapterState("default");
        Assert.Contains(wanted.Keys, k => k.EndsWith("base_layer.weight", StringComparison.Ordinal));
        peft.Merge();
        var got = peft.GetAdapterState("default");
        Assert.Equal(wanted.Keys, got.Keys);
        foreach (var (name, value) in wanted) TensorAssert.Equal(value, got[name], name);
        Free(wanted, got);
    }

    [Fact, Trait("Fault", "lora-5")]
    public void Trained_biases_are_saved_unmerged_too()
    {
        using var model = ReferenceModel.Load(Path.Combine(Bases, "llama-bias"), "llama", ScalarType.Float32);
        using var peft = model.GetPeftModel(Config with { Bias = LoraBias.LoraOnly, LoraBOwnBias = true });
        TinyNet.Randomise(peft);
        var wanted = peft.GetAdapterState("default");
        peft.Merge();
        var got = peft.GetAdapterState("default");
        foreach (var (name, value) in wanted) TensorAssert.Equal(value, got[name], name);
        Free(wanted, got);
    }

    [Fact, Trait("Fault", "lora-11")]
    public void Rows_and_factors_on_one_weight_are_taken_out_in_the_order_that_restores_it()
    {
        var table = new Parameter(randn(11, 6).DetachFromDisposeScope(), requires_grad: false);
        using var net = nn.Sequential(("embed_tokens", new FrozenEmbedding(table)), ("lm_head", nn.Linear(table)));
        var tokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [7, 5] };
        using var peft = net.GetPeftModel(Config with { TargetModules = ["lm_head"], TrainableTokens = tokens });
        TinyNet.Randomise(peft);
        var before = table.detach().clone();
        peft.Merge();
        Assert.True((before - table).abs().max().ToDouble() > 0.1);
        peft.Unmerge();
        TensorAssert.Equal(before, table, "table");
    }

    [Fact, Trait("Fault", "lora-9")]
    public void Trained_biases_and_modules_in_full_load_again()
    {
        using var folder = new TemporaryFolder();
        using var noGrad = no_grad();
        using var net = new TinyNet();
        net.eval();
        var x = randn(3, 7);
        using (var peft = net.GetPeftModel(Config with { TargetModules = ["first"], ModulesToSave = ["down"], Bias = LoraBias.All }))
        {
            TinyNet.Randomise(peft);
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(0.1);
            var wanted = net.call(x);
            peft.Save(folder.Path);
            peft.Unload();
            using var again = PeftModel.Load(net, folder.Path);
            TensorAssert.Equal(wanted, net.call(x), "loaded");
        }
        // As PEFT writes it: the copy's bias also under a second name. And without that of the original, which has no effect.
        var (config, tensors) = Content(folder.Path);
        const string module = "base_model.model.tail.down.";
        tensors[module + "modules_to_save.bias"] = tensors[module + "bias"].clone();
        tensors.Remove(module + "original_module.bias");
        AdapterFolder.Write(folder.Path, config, tensors);
        using var asPeft = PeftModel.Load(net, folder.Path);
        Assert.Equal(["default"], asPeft.AdapterNames);
    }

    private static (LoraConfig Config, Dictionary<string, Tensor> Tensors) Content(string folder)
    {
        using var files = AdapterFolder.Open(folder);
        return (files.Config, files.Tensors.Entries.Keys.ToDictionary(k => k, k => files.Tensors.Load(k)));
    }

    private static Sequential Stack(int count) => nn.Sequential([.. Enumerable.Range(0, count).Select(i => ($"layer{i}", (nn.Module<Tensor, Tensor>)nn.Linear(9, 9)))]);

    private static void Free(params OrderedDictionary<string, Tensor>[] states)
    {
        foreach (var tensor in states.SelectMany(s => s.Values)) tensor.Dispose();
    }

    /// <summary>Notes how many tensors are alive when its weight is stored.</summary>
    private sealed class WatchedLinear : FrozenLinear
    {
        private readonly Parameter weight = new(randn(9, 9), requires_grad: false);

        public WatchedLinear()
            : base(nameof(WatchedLinear)) => RegisterComponents();

        public long LiveAtOverwrite { get; private set; }

        public override long InFeatures => 9;

        public override long OutFeatures => 9;

        public override ScalarType WeightDtype => weight.dtype;

        public override Device StorageDevice => weight.device;

        public override Tensor? BiasTensor => null;

        public override long StoredBytes => weight.numel() * 4;

        public override Tensor Apply(Tensor input) => nn.functional.linear(input, weight);

        public override Tensor ApplyTransposed(Tensor gradOutput) => gradOutput.matmul(weight);

        public override Tensor MaterializeWeight(ScalarType dtype) => weight.detach().to(dtype, copy: true).DetachFromDisposeScope();

        public override void OverwriteWeight(Tensor content)
        {
            LiveAtOverwrite = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
            weight.copy_(content);
        }
    }
}
