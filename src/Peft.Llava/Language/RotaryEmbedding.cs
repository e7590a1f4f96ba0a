using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// LLaMA's rotary position embedding: the two halves of a head are rotated against each other (not neighbouring pairs). Angles are float32,
/// cosine and sine are rounded to the dtype of what is rotated.
/// </summary>
public sealed class RotaryEmbedding
{
    private readonly int _headDim;
    private readonly double _theta;
    private readonly int _maxPositions;
    private readonly RopeScaling? _scaling;
    private readonly DynamicRopeMemory _memory;
    private int _remembered;

    /// <summary>Creates the embedding.</summary>
    /// <param name="headDim">d, even.</param>
    /// <param name="theta">The base.</param>
    /// <param name="maxPositions">Positions of the original training; dynamic scaling begins beyond.</param>
    /// <param name="scaling">Stretching, or null.</param>
    /// <param name="memory">What dynamic scaling remembers between calls.</param>
    public RotaryEmbedding(int headDim, double theta, int maxPositions, RopeScaling? scaling = null,
        DynamicRopeMemory memory = DynamicRopeMemory.None)
    {
        _headDim = headDim;
        _theta = theta;
        _maxPositions = maxPositions;
        _scaling = scaling;
        _memory = memory;
        _remembered = maxPositions;
    }

    /// <summary>
    /// A dtype that cosine and sine are rounded to before they get that of the queries; null for none. Transformers before 4.38 keeps them in the
    /// dtype that a model was loaded in, also where the model is converted afterwards: set this to compare with such a run.
    /// </summary>
    public ScalarType? TableDtype { get; set; }

    /// <summary>The inverse frequencies for a sequence length.</summary>
    /// <param name="sequenceLength">Length of the (padded) sequence so far; only dynamic scaling looks at it.</param>
    /// <returns>A fresh float32 tensor (d/2), before linear scaling, which divides positions.</returns>
    public Tensor InverseFrequencies(int sequenceLength)
    {
        using var scope = NewDisposeScope();
        var exponent = arange(0, _headDim, 2, ScalarType.Int64).to(ScalarType.Float32) / _headDim;
        return pow(Base(sequenceLength), exponent).reciprocal().MoveToOuterDisposeScope();
    }

    /// <summary>The tables for given positions.</summary>
    /// <param name="positions">I64 (N).</param>
    /// <param name="sequenceLength">Length of the (padded) sequence so far; only dynamic scaling looks at it.</param>
    /// <param name="dtype">The dtype of the queries and keys.</param>
    /// <returns>Fresh tensors in the current dispose scope.</returns>
    public RotaryTables Tables(Tensor positions, int sequenceLength, ScalarType dtype)
    {
        ArgumentNullException.ThrowIfNull(positions);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var t = positions.to(ScalarType.Float32);
        if (_scaling is { Kind: RopeScalingKind.Linear }) t = t / _scaling.Factor;
        var angles = t.view(-1, 1, 1) * InverseFrequencies(sequenceLength).to(t.device);
        var kept = TableDtype ?? dtype;
        return new RotaryTables(angles.cos().to(kept).to(dtype).MoveToOuterDisposeScope(), angles.sin().to(kept).to(dtype).MoveToOuterDisposeScope());
    }

    /// <summary>Rotates queries or keys.</summary>
    /// <param name="x">(N, heads, d).</param>
    /// <param name="cos">(N, 1, d/2), of x's dtype.</param>
    /// <param name="sin">(N, 1, d/2), of x's dtype.</param>
    /// <returns>A fresh (N, heads, d) tensor in the current dispose scope.</returns>
    public static Tensor Rotate(Tensor x, Tensor cos, Tensor sin)
    {
        ArgumentNullException.ThrowIfNull(x);
        using var scope = NewDisposeScope();
        long half = x.shape[^1] / 2;
        var first = x.narrow(-1, 0, half);
        var second = x.narrow(-1, half, half);
        return cat([first * cos - second * sin, second * cos + first * sin], -1).MoveToOuterDisposeScope();
    }

    private double Base(int sequenceLength)
    {
        if (_scaling is not { Kind: RopeScalingKind.Dynamic }) return _theta;
        int length = Math.Max(sequenceLength, _maxPositions);
        if (_memory == DynamicRopeMemory.Largest) length = _remembered = Math.Max(length, _remembered);
        if (_memory == DynamicRopeMemory.LargestUntilShort)
            length = _remembered = sequenceLength < _maxPositions ? _maxPositions : Math.Max(length, _remembered);
        return _theta * Math.Pow(_scaling.Factor * length / _maxPositions - (_scaling.Factor - 1), _headDim / (_headDim - 2.0));
    }
}
