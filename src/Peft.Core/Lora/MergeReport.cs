using System.Globalization;

namespace Peft.Core;

/// <summary>What a merge did to one layer.</summary>
/// <param name="Path">Its outer path.</param>
/// <param name="Adapters">The adapters merged there.</param>
/// <param name="WeightNorm">The Frobenius norm of the weight before.</param>
/// <param name="DeltaNorm">The norm of what was added.</param>
/// <param name="RoundingNorm">The norm of what rounding to the storage's form lost or added.</param>
public sealed record MergedLayer(string Path, IReadOnlyList<string> Adapters, double WeightNorm, double DeltaNorm, double RoundingNorm);

/// <summary>What a merge did.</summary>
/// <param name="Adapters">The adapters, in order.</param>
/// <param name="Layers">The layers, in the model's order.</param>
public sealed record MergeReport(IReadOnlyList<string> Adapters, IReadOnlyList<MergedLayer> Layers)
{
    /// <summary>The largest share of a layer's change that rounding ate or added: 0 is exact, 1 as large as the change itself.</summary>
    public double WorstRounding => Layers.Count == 0 ? 0 : Layers.Max(l => l.DeltaNorm == 0 ? 0 : l.RoundingNorm / l.DeltaNorm);

    /// <summary>One line.</summary>
    /// <returns>The text.</returns>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{string.Join(" + ", Adapters)} merged into {Layers.Count} layers; rounding is at most {WorstRounding:P2} of a layer's change");
}
