using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>A model is cast or moved after adapters were put on it: TorchSharp makes new parameters, and the adapters go with them.</summary>
[Trait("Fault", "lora-1")]
public sealed class MoveTests : IDisposable
{
    private static readonly string Bases = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases");

    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    public static TheoryData<string, LoraConfig> Kinds()
    {
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] };
        return new()
        {
            { "llama", config }, { "llama", config with { UseDora = true } }, { "llama", config with { TargetModules = ["q_proj", "embed_tokens"], ModulesToSave = ["lm_head"] } },
            { "llama", config with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [7, 5] } } },
            { "llama-bias", config with { LoraBOwnBias = true } }, { "llama-bias", config with { Bias = LoraBias.All } },
        };
    }

    [Theory, MemberData(nameof(Kinds))]
    public void Adapters_follow_a_cast_of_the_model(string kind, LoraConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        using var model = ReferenceModel.Load(Path.Combine(Bases, kind), "llama", ScalarType.Float32);
        using var folder = new TemporaryFolder();
        var ids = new ReferenceInputs(new Dictionary<string, Tensor> { ["input_ids"] = tensor(new long[] { 5, 9, 7, 3, 12 }, [1, 5]) });
        Tensor Run()
        {
            using var noGrad = no_grad();
            return model.Run(ids);
        }

        var before = Run();
        using (var peft = model.GetPeftModel(config))
        {
            TinyNet.Randomise(peft);
            var wanted = Run();
            model.to(ScalarType.Float64);
            Assert.All(peft.NamedParameters(keepShared: true), p => Assert.Equal(ScalarType.Float64, p.Parameter.dtype));
            TensorAssert.Close(wanted.to(ScalarType.Float64), Run(), 1e-4, 1e-4, "output after the cast");
            peft.Save(folder.Path);
            Assert.Equal(peft.GetAdapterState("default").Keys.Order(StringComparer.Ordinal), AdapterFolder.Open(folder.Path).Tensors.Entries.Keys.Order(StringComparer.Ordinal));
            // What is trained now is what the layers use.
            model.Run(ids).sum().backward();
            var trained = peft.TrainableParameters().ToList();
            Assert.Equal(trained.Count, trained.Count(p => !p.Parameter.IsInvalid));
            Assert.Contains(trained, p => p.Parameter.grad is { } grad && grad.abs().max().ToDouble() > 0);
            peft.Merge();
            peft.Unmerge();
            model.to(ScalarType.Float32);
            TensorAssert.Close(wanted, Run(), 1e-4, 1e-4, "output after the way back");
            peft.Merge();
            model.to(ScalarType.Float64);
        }
        model.to(ScalarType.Float32);
        TensorAssert.Close(before, Run(), 1e-5, 1e-5, "unloaded");
        Assert.DoesNotContain(model.parameters(), p => p.IsInvalid);
    }

    public static TheoryData<LoraConfig> Ties()
    {
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["mid"], EnsureWeightTying = true };
        return new()
        {
            config with { TargetModules = ["embed_tokens"] }, config with { ModulesToSave = ["embed_tokens"] },
            config with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [7, 5] } },
        };
    }

    [Theory, MemberData(nameof(Ties))]
    public void What_is_tied_follows_a_cast_and_stays_tied(LoraConfig config)
    {
        using var net = new TiedNet();
        using var noGrad = no_grad();
        var ids = tensor(new long[] { 5, 7, 3, 1, 7 });
        using var peft = net.GetPeftModel(config);
        TinyNet.Randomise(peft);
        var wanted = net.call(ids);
        net.to(ScalarType.Float64);
        TensorAssert.Close(wanted.to(ScalarType.Float64), net.call(ids), 1e-5, 1e-5, "output after the cast");
        // A change of the one is a change of the other, before and after a way back.
        for (int round = 0; round < 2; round++)
        {
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(0.25);
            var changed = net.call(ids);
            var state = peft.GetAdapterState("default");
            foreach (var host in peft.Hosts)
                foreach (var tensor in host.TensorsOf("default"))
                    TensorAssert.Equal(state[$"base_model.model.{host.ModulePath}.{tensor.DiskName}"], tensor.Tensor, tensor.DiskName);
            foreach (var tensor in state.Values) tensor.Dispose();
            if (config.TargetModules!.Contains("embed_tokens"))
                TensorAssert.Equal(peft.LayerAt("embed_tokens")!.Adapters["default"].B.t(), peft.LayerAt("lm_head")!.Adapters["default"].A, "A of the head");
            net.to(round == 0 ? ScalarType.Float32 : ScalarType.Float64);
            TensorAssert.Close(changed.to(ScalarType.Float64), net.call(ids).to(ScalarType.Float64), 1e-4, 1e-4, "output after another cast");
        }
    }

    [Fact]
    public void Adapters_follow_a_move_and_what_was_trained_before_is_so_again_after_it()
    {
        using var net = new TinyNet();
        foreach (var (name, parameter) in net.named_parameters()) parameter.requires_grad = name.StartsWith("norm", StringComparison.Ordinal);
        using (var peft = net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["first", "up"], ModulesToSave = ["blocks.1"], Init = LoraInit.Pissa }))
        {
            peft.AddAdapter("later", new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["down"] });
            net.to(DeviceType.META);
            Assert.All(peft.NamedParameters(), p => Assert.Equal(DeviceType.META, p.Parameter.device_type));
            Assert.All(peft.Layers.SelectMany(l => l.Adapters.Values), a => Assert.Equal(DeviceType.META, a.A.device_type));
        }
        Assert.All(net.named_parameters(), p => Assert.Equal(p.name.StartsWith("norm", StringComparison.Ordinal), p.parameter.requires_grad));
    }

    [Fact]
    public void A_cast_leaves_no_tensor_behind()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["first", "up"], UseDora = true });
        LeakGuard.AssertFlat(3, () =>
        {
            net.to(ScalarType.Float64);
            net.to(ScalarType.Float32);
        });
    }

    /// <summary>An embedding, a layer, and a head that uses the embedding's table.</summary>
    private sealed class TiedNet : nn.Module<Tensor, Tensor>, IAdapterTargets
    {
        private nn.Module<Tensor, Tensor> embed_tokens;
        private nn.Module<Tensor, Tensor> mid;
        private nn.Module<Tensor, Tensor> lm_head;

        public TiedNet()
            : base(nameof(TiedNet))
        {
            var table = new FrozenEmbedding(randn(11, 6).DetachFromDisposeScope());
            embed_tokens = table;
            mid = nn.Linear(6, 6);
            lm_head = new Head(() => table.Weight);
            RegisterComponents();
        }

        public IReadOnlyDictionary<string, IReadOnlyList<string>> AdapterGroups => new Dictionary<string, IReadOnlyList<string>>();

        public string InputEmbedding => "embed_tokens";

        public string OutputHead => "lm_head";

        public bool TiesEmbeddings => true;

        public override Tensor forward(Tensor ids) => lm_head.call(mid.call(embed_tokens.call(ids)));

        private sealed class Head(Func<Parameter> table) : nn.Module<Tensor, Tensor>(nameof(Head)), ITiedLinear
        {
            public Parameter Weight => table();

            public override Tensor forward(Tensor input) => nn.functional.linear(input, Weight);
        }
    }
}
