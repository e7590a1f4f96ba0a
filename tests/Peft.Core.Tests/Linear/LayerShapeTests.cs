using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Tensors that cannot be a layer's are refused when the layer is made.</summary>
public sealed class LayerShapeTests
{
    private static readonly Func<Tensor, Tensor?, nn.Module> Dense = (w, b) => new DenseFrozenLinear(w, b, "q_proj"), Transposed = (w, b) => new TransposedFrozenLinear(w, b, "c_attn"),
        Embedding = (w, _) => new FrozenEmbedding(w);

    public static TheoryData<string, long[], long[]?, string> Wrong => new()
    {
        { nameof(Dense), [3], null, "q_proj.weight: expected shape (?, ?), got (3)." },
        { nameof(Dense), [2, 3], [3], "q_proj.bias: expected shape (2), got (3)." },
        { nameof(Dense), [2, 3], [2, 1], "q_proj.bias: expected shape (2), got (2, 1)." },
        { nameof(Transposed), [2, 3, 1], null, "c_attn.weight: expected shape (?, ?), got (2, 3, 1)." },
        { nameof(Transposed), [2, 3], [2], "c_attn.bias: expected shape (3), got (2)." },
        { nameof(Embedding), [5], null, "FrozenEmbedding.weight: expected shape (?, ?), got (5)." },
    };

    [Theory, MemberData(nameof(Wrong))]
    public void Shapes_are_named(string layer, long[] weight, long[]? bias, string message)
    {
        using var scope = NewDisposeScope();
        var make = layer switch { nameof(Dense) => Dense, nameof(Transposed) => Transposed, _ => Embedding };
        Assert.Equal(message + " Check that the tensor belongs to this layer of this model.",
            Assert.Throws<ShapeMismatchException>(() => make(zeros(weight), bias is null ? null : zeros(bias))).Message);
    }
}
