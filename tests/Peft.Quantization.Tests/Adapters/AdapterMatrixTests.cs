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
    private const int Words = 11, In = 64, Out = 24, Classes = 5, Rows = 6;

    private static LoraConfig Base { get; } = new() { Rank = 3, Alpha = 7, TargetModules = ["lin"], TaskType = "CAUSAL_LM" };

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _folder = Directory.CreateTempSubdirectory("peft-matrix-").FullName;

    /// <summary>
    /// The relative root mean squares that outputs and gradients may differ from the twin by, and merged outputs from those before: rounding of the dtype;
    /// int8 rounds inputs too; a merge into a compressed weight encodes it again.
    /// </summary>
    private static readonly Row[] Storages =
    [
        new("torch", ScalarType.Float32, 1e-5, 1e-5), new("dense", ScalarType.Float32, 1e-5, 1e-5), new("mapped", ScalarType.Float32, 1e-5, 1e-5),
        new("transposed", ScalarType.Float32, 1e-5, 1e-5), new("nf4", ScalarType.Float32, 1e-5, 0.2), new("fp4", ScalarType.Float32, 1e-5, 0.3), new("int8", ScalarType.Float32, 0.03, 0.03),
        new("torch", ScalarType.BFloat16, 0.02, 0.02), new("dense", ScalarType.BFloat16, 0.02, 0.02), new("mapped", ScalarType.BFloat16, 0.02, 0.02), new("transposed", ScalarType.BFloat16, 0.02, 0.02),
        new("nf4", ScalarType.BFloat16, 0.02, 0.2), new("fp4", ScalarType.BFloat16, 0.02, 0.3), new("int8", ScalarType.BFloat16, 0.03, 0.03),
        new("torch", ScalarType.Float16, 0.003, 0.003), new("dense", ScalarType.Float16, 0.003, 0.003), new("mapped", ScalarType.Float16, 0.003, 0.003), new("transposed", ScalarType.Float16, 0.003, 0.003),
        new("nf4", ScalarType.Float16, 0.003, 0.2), new("fp4", ScalarType.Float16, 0.003, 0.3), new("int8", ScalarType.Float16, 0.03, 0.03),
    ];

    private static readonly Dictionary<string, LoraConfig> Options = new()
    {
        ["plain"] = Base, ["rslora"] = Base with { UseRsLora = true }, ["dora"] = Base with { UseDora = true }, ["lora_bias"] = Base with { LoraBOwnBias = true },
        ["dropout"] = Base with { Dropout = 0.3 }, ["dora_dropout"] = Base with { UseDora = true, Dropout = 0.3 },
        ["bias"] = Base with { Bias = LoraBias.LoraOnly },
        ["pattern"] = Base with { RankPattern = new Dictionary<string, int> { ["lin"] = 5 }, AlphaPattern = new Dictionary<string, double> { ["lin"] = 4 } },
        ["modules_to_save"] = Base with { ModulesToSave = ["head"] }, ["embedding"] = Base with { TargetModules = ["lin", "embed_tokens"] },
        ["tokens"] = Base with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [7, 2] } },
        ["everything"] = Base with { UseRsLora = true, UseDora = true, TargetModules = ["lin", "embed_tokens"], ModulesToSave = ["head"], RankPattern = new Dictionary<string, int> { ["lin"] = 4 } },
    };

    public static IEnumerable<TheoryDataRow<string, ScalarType, string>> Cells
        => from row in Storages
           from option in Options.Keys
           select new TheoryDataRow<string, ScalarType, string>(row.Storage, row.Dtype, option);

    public void Dispose()
    {
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory, MemberData(nameof(Cells)), Trait("Fault", "lora-2")]
    public void A_training_step_gives_the_gradients_of_a_dense_twin(string storage, ScalarType dtype, string option)
    {
        double tolerance = RowOf(storage, dtype).Tolerance;
        var (model, twin) = Pair(storage, dtype);
        using var peft = model.GetPeftModel(Options[option]);
        using var other = twin.GetPeftModel(Options[option]);
        Randomise(peft, other);
        var x = Input(dtype).requires_grad_(true);
        var wide = x.detach().to(ScalarType.Float32).requires_grad_(true);
        var y = Drawn(model, x);
        var wanted = Drawn(twin, wide);
        Assert.Equal(dtype, y.dtype);
        Near(wanted, y, tolerance, "output");
        var gradient = randn_like(wanted);
        wanted.backward([gradient]);
        y.backward([gradient.to(y.dtype)]);
        Near(wide.grad!, x.grad!, tolerance, "input gradient");
        var trained = peft.TrainableParameters().ToList();
        Assert.Equal(other.TrainableParameters().Select(p => p.Name), trained.Select(p => p.Name));
        foreach (var ((name, a), (_, b)) in trained.Zip(other.TrainableParameters())) Near(b.grad!, a.grad!, tolerance, name);
    }

    [Theory, MemberData(nameof(Cells))]
    public void What_is_saved_gives_the_same_output_on_a_fresh_base(string storage, ScalarType dtype, string option)
    {
        var (model, _) = Pair(storage, dtype);
        model.eval();
        var x = Input(dtype);
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
    public void Whatever_was_done_the_base_comes_back_bit_for_bit(string storage, ScalarType dtype, string option)
    {
        var (model, _) = Pair(storage, dtype);
        model.eval();
        var x = Input(dtype);
        using var noGrad = no_grad();
        var before = model.Run(x);
        var modules = ModuleTree.Modules(model).ToList();
        var peft = model.GetPeftModel(Options[option]);
        using (peft.WithoutAdapter()) TensorAssert.Equal(before, model.Run(x), "switched off");
        Randomise(peft);
        var active = model.Run(x);
        Assert.True((active - before).abs().max().ToDouble() > 1e-2, "The adapter has no effect.");
        // What is left when the adapter is switched off: the base, with the biases that "bias" trains in place.
        Tensor off;
        using (peft.WithoutAdapter()) off = model.Run(x);
        Assert.Equal(option != "bias", off.Equals(before));
        peft.Merge();
        Near(active.to(ScalarType.Float32), model.Run(x), RowOf(storage, dtype).Merged, "merged");
        using (peft.WithoutAdapter()) TensorAssert.Equal(off, model.Run(x), "merged and switched off");
        peft.Unmerge();
        TensorAssert.Equal(active, model.Run(x), "taken out");
        peft.Merge(safe: false);
        peft.Unload();
        TensorAssert.Equal(before, model.Run(x), "unloaded");
        Assert.Equal(modules, ModuleTree.Modules(model));
    }

    private sealed record Row(string Storage, ScalarType Dtype, double Tolerance, double Merged);

    private static Row RowOf(string storage, ScalarType dtype) => Storages.Single(r => r.Storage == storage && r.Dtype == dtype);

    private static Tensor Input(ScalarType dtype) => randn(Rows, In).to(dtype);

    private static void Near(Tensor expected, Tensor got, double tolerance, string what)
        => TensorAssert.RelativeRms(expected, got.to(ScalarType.Float32), tolerance, what);

    // With the same dropout masks.
    private static Tensor Drawn(MatrixNet model, Tensor x)
    {
        manual_seed(11);
        return model.Run(x);
    }

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

    private (MatrixNet Model, MatrixNet Twin) Pair(string storage, ScalarType dtype)
    {
        var (weight, bias, table, head) = ((randn(Out, In) * 0.2).to(dtype), randn(Out).to(dtype), randn(Words, In).to(dtype), (randn(Classes, Out) * 0.5).to(dtype));
        var layer = Layer(storage, weight, bias);
        var decoded = layer is FrozenLinear frozen ? frozen.MaterializeWeight(ScalarType.Float32) : ((Linear)layer).weight.to(ScalarType.Float32, copy: true).detach();
        return (new MatrixNet(Own(table, dtype), layer, Own(head, dtype)),
            new MatrixNet(Own(table, ScalarType.Float32), new DenseFrozenLinear(decoded.DetachFromDisposeScope(), Own(bias, ScalarType.Float32)), Own(head, ScalarType.Float32)));
    }

    private static Tensor Own(Tensor tensor, ScalarType dtype) => tensor.to(dtype, copy: true).DetachFromDisposeScope();

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
            case "nf4" or "fp4":
                return new FourBitLinear(new FourBitCodec(storage == "nf4" ? QuantType.Nf4 : QuantType.Fp4).Encode(weight), own);
            default:
                var (codes, absmax) = RowwiseInt8Codec.EncodeWeight(weight);
                return new Int8Linear(codes.DetachFromDisposeScope(), absmax.DetachFromDisposeScope(), own, threshold: 0, weightDtype: weight.dtype);
        }
    }

    /// <summary>Words, the layer in question, and classes.</summary>
    private sealed class MatrixNet : nn.Module
    {
#pragma warning disable IDE0044 // adapters replace the fields' values
        private nn.Module<Tensor, Tensor> embed_tokens;
        private nn.Module<Tensor, Tensor> lin;
        private nn.Module<Tensor, Tensor> head;
#pragma warning restore IDE0044

        public MatrixNet(Tensor table, nn.Module<Tensor, Tensor> layer, Tensor classes)
            : base(nameof(MatrixNet))
        {
            embed_tokens = new FrozenEmbedding(table);
            lin = layer;
            head = new DenseFrozenLinear(classes);
            RegisterComponents();
        }

        /// <summary>Each row of (Rows, In) with the vector of a word added; (Rows, Classes).</summary>
        public Tensor Run(Tensor x) => head.call(lin.call(x + embed_tokens.call(tensor(new long[] { 2, 7, 1, 7, 10, 0 }))));
    }
}
