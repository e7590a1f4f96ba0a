using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>How <see cref="PeftModel.AddWeightedAdapter"/> makes one adapter of several.</summary>
public enum CombinationType
{
    /// <summary>Weighted sum of the factors. Since A and B are summed apart, it is not the weighted sum of the effects.</summary>
    Linear,

    /// <summary>The factors side by side: exactly the weighted sum of the effects, at the sum of the ranks.</summary>
    Cat,

    /// <summary>The weighted sum of the effects, brought back to a low rank by an SVD.</summary>
    Svd,

    /// <summary>TIES on the factors: prune by magnitude, elect signs, average those that agree (Yadav et al. 2023).</summary>
    Ties,

    /// <summary>TIES on the effects, then an SVD.</summary>
    TiesSvd,

    /// <summary>DARE on the factors: drop at random, scale up, sum (Yu et al. 2023).</summary>
    DareLinear,

    /// <summary>DARE's dropping, then TIES' election, on the factors.</summary>
    DareTies,

    /// <summary>DARE on the effects, then an SVD.</summary>
    DareLinearSvd,

    /// <summary>DARE and TIES on the effects, then an SVD.</summary>
    DareTiesSvd,

    /// <summary>Prune the factors by magnitude, then sum.</summary>
    MagnitudePrune,

    /// <summary>Prune the effects by magnitude, sum, then an SVD.</summary>
    MagnitudePruneSvd,
}

/// <summary>How the sign is elected in TIES.</summary>
public enum MajoritySign
{
    /// <summary>By the sum of the values.</summary>
    Total,

    /// <summary>By the number of values of each sign.</summary>
    Frequency,
}

/// <summary>The random choice of DARE.</summary>
public interface IPruningMasks
{
    /// <summary>Which entries of a tensor are kept.</summary>
    /// <param name="module">The layer's outer path.</param>
    /// <param name="part">"A", "B" or "delta".</param>
    /// <param name="adapter">The adapter that the tensor belongs to.</param>
    /// <param name="values">The tensor; not changed and not kept.</param>
    /// <param name="density">The share that is kept.</param>
    /// <returns>A fresh tensor of the same shape: 1 kept, 0 dropped; the caller disposes it.</returns>
    Tensor Draw(string module, string part, string adapter, Tensor values, double density);
}

/// <summary>What a combination needs beside its type.</summary>
public sealed record CombinationOptions
{
    /// <summary>The share of entries that is kept, above 0 and at most 1; needed by the types that prune.</summary>
    public double? Density { get; init; }

    /// <summary>The rank of a combination by SVD; null for the largest rank there is.</summary>
    public int? SvdRank { get; init; }

    /// <summary>How TIES elects signs.</summary>
    public MajoritySign MajoritySign { get; init; }

    /// <summary>DARE's choice; null for libtorch's generator.</summary>
    public IPruningMasks? Masks { get; init; }
}
