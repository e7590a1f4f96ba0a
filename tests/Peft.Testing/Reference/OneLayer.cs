#pragma warning disable CS1591, IDE0044, CA1051
using System.Text.Json.Nodes;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>A model of one layer, for the recorded inits.</summary>
public sealed class OneLayer : nn.Module
{
    private readonly nn.Module<Tensor, Tensor> lin;

    public OneLayer(nn.Module<Tensor, Tensor> layer)
        : base(nameof(OneLayer))
    {
        lin = layer;
        RegisterComponents();
    }

    /// <summary>The layer of a case of kind "init".</summary>
    public static OneLayer Of(GoldenCase golden)
    {
        using var inputs = golden.Tensors("inputs.safetensors");
        var dtype = golden.Json.GetProperty("base_dtype").GetString() switch { "bfloat16" => ScalarType.BFloat16, "float16" => ScalarType.Float16, _ => ScalarType.Float32 };
        // Where only the shape was recorded the values do not matter.
        var weight = inputs.Entries.ContainsKey("base_weight")
            ? inputs.Load("base_weight").to(dtype)
            : randn(inputs.Load("base_weight_shape").data<long>().ToArray(), dtype);
        return new OneLayer(golden.Json.GetProperty("layer").GetString() switch
        {
            "linear" => nn.Linear(new Parameter(weight.DetachFromDisposeScope())),
            "conv1d" => new TransposedFrozenLinear(weight.DetachFromDisposeScope(), zeros(weight.shape[1], dtype).DetachFromDisposeScope()),
            "embedding" => new FrozenEmbedding(weight.DetachFromDisposeScope()),
            "conv2d" => Convolution(weight),
            var other => throw new ArgumentException($"No layer '{other}'."),
        });
    }

    public static LoraConfig ConfigOf(GoldenCase golden)
    {
        var fields = JsonNode.Parse(golden.Json.GetProperty("config_passed").GetRawText())!.AsObject();
        fields["peft_type"] = "LORA";
        fields["target_modules"] = new JsonArray("lin");
        fields.TryAdd("r", 8);
        return AdapterConfigJson.Parse(fields.ToJsonString());
    }

    /// <summary>Compares what the case names in its list "compare", and the exact factors where a generator's seed gives them.</summary>
    public static void Compare(GoldenCase golden, PeftModel peft)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var expected = golden.Tensors("expected.safetensors");
        var layer = peft.LayerAt("lin")!;
        var adapter = layer.Adapters["default"];
        Assert.Equal(golden.Json.GetProperty("scaling").GetDouble(), adapter.Scaling, 9);
        bool transposed = layer.Original is TransposedFrozenLinear;
        Tensor Stored(Tensor t) => transposed ? t.t() : t;
        var got = new Dictionary<string, Func<Tensor>>
        {
            ["A"] = () => adapter.A,
            ["B"] = () => adapter.B,
            ["delta"] = () => Stored(layer.DeltaWeight("default")),
            ["base_weight_after"] = () => Stored(layer.BaseWeight(expected.Entries["base_weight_after"].Dtype)),
            ["AAt"] = () => adapter.A.matmul(adapter.A.t()),
            ["BtB"] = () => adapter.B.t().matmul(adapter.B),
            ["product"] = () => adapter.B.matmul(adapter.A),
        };
        var compare = golden.Json.GetProperty("compare").EnumerateArray().Select(e => e.GetString()!).ToList();
        if (compare.Remove("statistics")) CompareStatistics(golden, layer is LoraEmbedding ? adapter.B : adapter.A);
        // The random factors are exact with the given seed, whatever "compare" asks for.
        if (golden.Json.GetProperty("method").GetString() is "default" or "gaussian" or "embedding" or "conv2d") compare = [.. compare.Union(["A", "B"])];
        foreach (string name in compare)
        {
            var wanted = Expected(expected, name);
            var value = got[name]();
            if (value.shape[0] > wanted.shape[0]) value = value.narrow(0, 0, wanted.shape[0]);
            var tolerance = golden.Json.GetProperty("tolerance");
            var (atol, rtol) = tolerance.TryGetProperty(name, out var t) ? (t.GetProperty("atol").GetDouble(), t.GetProperty("rtol").GetDouble()) : (0, 0);
            TensorAssert.Close(wanted, value, atol, rtol, name, IsaSpread.Of(golden, name));
        }
    }

    // Where the products were not recorded, those of the recorded factors are meant.
    private static Tensor Expected(SafetensorsReader expected, string name)
    {
        if (expected.Entries.ContainsKey(name) || name is not ("AAt" or "BtB")) return expected.Load(name);
        var factor = expected.Load(name == "AAt" ? "A" : "B");
        return name == "AAt" ? factor.matmul(factor.t()) : factor.t().matmul(factor);
    }

    private static void CompareStatistics(GoldenCase golden, Tensor factor)
    {
        var recorded = golden.Json.GetProperty("values").GetProperty("statistics");
        Assert.Equal(recorded.GetProperty("count").GetInt64(), factor.numel());
        Assert.Equal(recorded.GetProperty("min").GetDouble(), factor.min().ToDouble(), 6);
        Assert.Equal(recorded.GetProperty("max").GetDouble(), factor.max().ToDouble(), 6);
        Assert.Equal(recorded.GetProperty("mean").GetDouble(), factor.to(ScalarType.Float64).mean().ToDouble(), 6);
    }

    private static Conv2d Convolution(Tensor weight)
    {
        var convolution = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride: weight.shape[2], dtype: weight.dtype);
        using var noGrad = no_grad();
        convolution.weight.copy_(weight);
        return convolution;
    }

    /// <summary>The layer's output.</summary>
    public Tensor Run(Tensor input) => lin.call(input);
}
