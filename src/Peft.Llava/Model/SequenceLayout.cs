using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// How the sequences of a batch lie in a packed tensor: N rows, all valid tokens of sample 0, then those of sample 1, …; padding is left out.
/// Also what is needed to give the rectangular (padded) form that the reference implementations work on.
/// </summary>
public sealed class SequenceLayout
{
    private readonly long[] _positions;

    /// <summary>Creates a layout.</summary>
    /// <param name="lengths">Valid tokens of each sample.</param>
    /// <param name="paddingSide">Where the rectangular form is filled up.</param>
    public SequenceLayout(IReadOnlyList<int> lengths, PaddingSide paddingSide = PaddingSide.Right)
    {
        ArgumentNullException.ThrowIfNull(lengths);
        Lengths = [.. lengths];
        PaddingSide = paddingSide;
        PaddedLength = lengths.Count == 0 ? 0 : lengths.Max();
        var offsets = new int[lengths.Count];
        _positions = new long[lengths.Sum()];
        int row = 0;
        for (int sample = 0; sample < offsets.Length; sample++)
        {
            offsets[sample] = row;
            int first = FirstColumn(sample);
            for (int i = 0; i < lengths[sample]; i++) _positions[row++] = first + i;
        }
        Offsets = offsets;
    }

    /// <summary>Valid tokens of each sample.</summary>
    public IReadOnlyList<int> Lengths { get; }

    /// <summary>First packed row of each sample.</summary>
    public IReadOnlyList<int> Offsets { get; }

    /// <summary>Number of samples, B.</summary>
    public int Count => Lengths.Count;

    /// <summary>Number of packed rows, N.</summary>
    public int TokenCount => _positions.Length;

    /// <summary>Length of the rectangular form, T: that of the longest sample.</summary>
    public int PaddedLength { get; }

    /// <summary>Where the rectangular form is filled up.</summary>
    public PaddingSide PaddingSide { get; }

    /// <summary>
    /// The position of each packed row, as a forward pass counts it: its column in the rectangular form (so that left padding shifts
    /// positions, as it does in the reference).
    /// </summary>
    public ReadOnlySpan<long> Positions => _positions;

    /// <summary>The column of a sample's first valid token in the rectangular form.</summary>
    /// <param name="sample">0 .. <see cref="Count"/> - 1.</param>
    public int FirstColumn(int sample) => PaddingSide == PaddingSide.Left ? PaddedLength - Lengths[sample] : 0;

    /// <summary><see cref="Positions"/> as a tensor.</summary>
    /// <param name="device">Where it should live.</param>
    /// <returns>A fresh I64 tensor (N).</returns>
    public Tensor PositionIds(Device? device = null) => tensor(_positions, ScalarType.Int64, device);

    /// <summary>The mask of the rectangular form.</summary>
    /// <returns>A fresh BOOL tensor (B, T).</returns>
    public Tensor AttentionMask()
    {
        var mask = zeros(Count, PaddedLength, ScalarType.Bool);
        for (int sample = 0; sample < Count; sample++)
        {
            if (Lengths[sample] == 0) continue;
            using var row = mask[sample];
            using var valid = row.narrow(0, FirstColumn(sample), Lengths[sample]);
            valid.fill_(true);
        }
        return mask;
    }

    /// <summary>Spreads a packed tensor over the rectangular form.</summary>
    /// <param name="packed">(N, ...).</param>
    /// <param name="fill">What the padding holds.</param>
    /// <returns>A fresh tensor (B, T, ...), without gradient.</returns>
    public Tensor Pad(Tensor packed, double fill = 0)
    {
        ArgumentNullException.ThrowIfNull(packed);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        long[] shape = [Count, PaddedLength, .. packed.shape[1..]];
        var padded = full(shape, fill, packed.dtype, packed.device);
        for (int sample = 0; sample < Count; sample++)
        {
            if (Lengths[sample] == 0) continue;
            padded[sample].narrow(0, FirstColumn(sample), Lengths[sample]).copy_(packed.narrow(0, Offsets[sample], Lengths[sample]));
        }
        return padded.MoveToOuterDisposeScope();
    }

    /// <summary>Gathers the valid tokens of a rectangular tensor.</summary>
    /// <param name="padded">(B, T, ...).</param>
    /// <returns>A fresh tensor (N, ...).</returns>
    public Tensor Unpad(Tensor padded)
    {
        ArgumentNullException.ThrowIfNull(padded);
        using var scope = NewDisposeScope();
        var parts = Enumerable.Range(0, Count).Select(s => padded[s].narrow(0, FirstColumn(s), Lengths[s])).ToArray();
        return cat(parts, 0).MoveToOuterDisposeScope();
    }
}
