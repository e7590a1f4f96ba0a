using Peft.Core;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>
/// Storage x dtype x option, with the same bodies: a training step, saving and loading, merging and taking out, switching off, unloading. Each row
/// is compared with a dense float32 twin of the decoded weight; what differs between the rows is data.
/// </summary>
public sealed class AdapterMatrixTests : IDisposable
{
    private const int In = 64, Out = 24, Rows = 5;

    private static LoraConfig Base { get; } = new() { Rank = 3, Alpha = 7, TargetModules = ["lin"], TaskType = "CAUSAL_LM" };

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _folder = Directory.CreateTempSubdirectory("peft-matrix-").FullName;

    /// <summary>The relative root mean square that outputs and gradients may differ from the twin by: rounding of the dtype; int8 rounds inputs too.</summary>
    private static readonly (string Storage, ScalarType Dtype, double Tolerance)[] Storages =
    [
        ("torch", ScalarType.Float32, 1e-5), ("dense", ScalarType.Float32, 1e-5), ("mapped", ScalarType.Float32, 1e-5), ("transposed", ScalarType.Float32, 1e-5),
        ("nf4", ScalarType.Float32, 1e-5), ("dense", ScalarType.BFloat16, 0.02), ("mapped", ScalarType.BFloat16, 0.02), ("nf4", ScalarType.BFloat16, 0.02), ("int8", ScalarType.Float16, 0.03),
    ];

    private static readonly Dictionary<string, LoraConfig> Options = new()
    {
        ["plain"] = Base, ["rslora"] = Base with { UseRsLora = true }, ["dora"] = Base with { UseDora = true }, ["lora_bias"] = Base with { LoraBOwnBias = true },
        ["bias"] = Base with { Bias = LoraBias.LoraOnly }, ["pattern"] = Base with { RankPattern = new Dictionary<string, int> { ["lin"] = 5 } },
    };

    public static IEnumerable<TheoryDataRow<string, ScalarType, double, string>> Cells
        => from storage in Storages
           from option in Options.Keys
           select new TheoryDataRow<string, ScalarType, double, string>(storage.Storage, storage.Dtype, storage.Tolerance, option);

    public void Dispose()
    {
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory, MemberData(nameof(Cells))]
    public void A_training_step_gives_the_gradients_of_a_dense_twin(string storage, ScalarType dtype, double tolerance, string option)
    {
        var (model, twin) = Pair(storage, dtype);
        using var peft = model.GetPeftModel(Options[option]);
        using var other = twin.GetPeftModel(Options[option]);
        Randomise(peft, other);
        var x = randn(Rows, In).to(dtype).requires_grad_(true);
        var wide = x.detach().to(ScalarType.Float32).requires_grad_(true);
        var (y, wanted) = (model.Run(x), twin.Run(wide));
        Near(wanted, y, tolerance, "output");
        var gradient = randn_like(wanted);
        wanted.backward([gradient]);
        y.backward([gradient.to(y.dtype)]);
        Near(wide.grad!, x.grad!, tolerance, "input gradient");
        foreach (var ((name, a), (_, b)) in peft.TrainableParameters().Zip(other.TrainableParameters())) Near(b.grad!, a.grad!, tolerance, name);
    }

    [Theory, MemberData(nameof(Cells))]
    public void What_is_saved_gives_the_same_output_on_a_fresh_base(string storage, ScalarType dtype, double tolerance, string option)
    {
        _ = tolerance;
        var (model, _) = Pair(storage, dtype);
        var x = randn(Rows, In).to(dtype);
        using var noGrad = no_grad();
        var peft = model.GetPeftModel(Options[option]);
        Randomise(peft);
        var wanted = model.Run(x);
        peft.Save(_folder);
        peft.Dispose();
        using var loaded = PeftModel.Load(model, _folder, "again");
        TensorAssert.Equal(wanted, model.Run(x), "output");
    }

    [Theory, MemberData(nameof(Cells))]
    public void Whatever_was_done_the_base_comes_back_bit_for_bit(string storage, ScalarType dtype, double tolerance, string option)
    {
        _ = tolerance;
        var (model, _) = Pair(storage, dtype);
        var x = randn(Rows, In).to(dtype);
        using var noGrad = no_grad();
        var before = model.Run(x);
        var modules = ModuleTree.Modules(model).ToList();
        var peft = model.GetPeftModel(Options[option]);
        bool biased = Options[option].Bias != LoraBias.None;
        using (peft.WithoutAdapter()) TensorAssert.Equal(before, model.Run(x), "switched off");
        Randomise(peft);
        var active = model.Run(x);
        Assert.True((active - before).abs().max().ToDouble() > 1e-2, "The adapter has no effect.");
        peft.Merge();
        var merged = model.Run(x);
        Assert.True((merged - before).abs().max().ToDouble() > 1e-2, "The merged adapter has no effect.");
        if (storage is not ("nf4" or "int8")) Near(active.to(ScalarType.Float32), merged, dtype == ScalarType.Float32 ? 1e-5 : 0.02, "merged");
        if (!biased)
            using (peft.WithoutAdapter()) TensorAssert.Equal(before, model.Run(x), "merged and switched off");
        peft.Unmerge();
        TensorAssert.Equal(active, model.Run(x), "taken out");
        peft.Merge(safe: false);
        peft.Unload();
        TensorAssert.Equal(before, model.Run(x), "unloaded");
        Assert.Equal(modules, ModuleTree.Modules(model));
    }

    private static void Near(Tensor expected, Tensor got, double tolerance, string what)
        => TensorAssert.RelativeRms(expected, got.to(ScalarType.Float32), tolerance, what);

    // The same factors on both sides, in float32; magnitudes near the norms they start at, biases moved.
    private static void Randomise(params PeftModel[] models)
    {
        using var noGrad = no_grad();
        foreach (var parameters in models[0].TrainableParameters().Select((p, i) => models.Select(m => m.TrainableParameters().ElementAt(i).Parameter).ToList()))
        {
            var first = parameters[0];
            var values = first.dim() == 1 ? first * (1 + 0.2 * randn_like(first)) + 0.05 : randn_like(first) * 0.2;
            foreach (var parameter in parameters) parameter.copy_(values);
        }
    }

    private (Testing.OneLayer Model, Testing.OneLayer Twin) Pair(string storage, ScalarType dtype)
    {
        var weight = (randn(Out, In) * 0.2).to(dtype);
        var bias = randn(Out).to(dtype);
        var layer = Layer(storage, weight, bias);
        var decoded = layer is FrozenLinear frozen ? frozen.MaterializeWeight(ScalarType.Float32) : ((Linear)layer).weight.detach().clone();
        return (new Testing.OneLayer(layer), new Testing.OneLayer(new DenseFrozenLinear(decoded.DetachFromDisposeScope(), bias.to(ScalarType.Float32, copy: true).DetachFromDisposeScope())));
    }

    private nn.Module<Tensor, Tensor> Layer(string storage, Tensor weight, Tensor bias)
    {
        var own = bias.clone().DetachFromDisposeScope();
        switch (storage)
        {
            case "torch":
                return nn.Linear(new Parameter(weight.clone().DetachFromDisposeScope()), new Parameter(own));
            case "dense":
                return new DenseFrozenLinear(weight.clone().DetachFromDisposeScope(), own);
            case "transposed":
                return new TransposedFrozenLinear(weight.t().contiguous().clone().DetachFromDisposeScope(), own);
            case "mapped":
                string file = Path.Combine(_folder, "base.safetensors");
                SafetensorsWriter.Write(file, new Dictionary<string, Tensor> { ["w"] = weight });
                using (var reader = SafetensorsReader.Open(file)) return new DenseFrozenLinear(reader.Map("w"), own);
            case "nf4":
                return new FourBitLinear(new FourBitCodec(QuantType.Nf4).Encode(weight), own);
            default:
                var (codes, absmax) = RowwiseInt8Codec.EncodeWeight(weight);
                return new Int8Linear(codes.DetachFromDisposeScope(), absmax.DetachFromDisposeScope(), own, threshold: 0, weightDtype: weight.dtype);
        }
    }
}
