using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Weights for models that are made, not loaded: of a size at which activations neither vanish nor explode, and none of them neutral.</summary>
internal static class RandomWeights
{
    public static Tensor Draw(TensorSpec spec, Generator generator)
    {
        using var scope = NewDisposeScope();
        var draw = randn([.. spec.Shape], ScalarType.Float32, generator: generator);
        string name = spec.Name;
        Tensor scaled;
        if (name.EndsWith(".bias", StringComparison.Ordinal)) scaled = draw * 0.1;
        else if (name.Contains("norm", StringComparison.Ordinal)) scaled = draw * 0.1 + 1;
        else if (name.Contains("embed", StringComparison.Ordinal) || spec.Shape.Count < 2) scaled = draw * 0.5;
        else scaled = draw * (0.9 / Math.Sqrt(spec.Shape.Skip(1).Aggregate(1L, (product, side) => product * side)));
        return scaled.MoveToOuterDisposeScope();
    }
}
