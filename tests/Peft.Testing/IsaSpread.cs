using Peft.Core;

namespace Peft.Testing;

/// <summary>
/// How far the Python libraries themselves move between instruction sets, for one recorded quantity in half precision: what its tolerance is widened by
/// on a level other than the recorded one (the areas' READMEs have the rule; values in float32 and exact ones have no entry).
/// </summary>
/// <param name="MaxAbs">The largest distance of one element.</param>
/// <param name="Rms">The root mean square of the distances; for a single number its distance.</param>
public readonly record struct IsaSpread(double MaxAbs, double Rms)
{
    /// <summary>The level that the cases were recorded on: there the tolerance alone counts.</summary>
    public const CpuLevel Recorded = CpuLevel.Avx512Bf16;

    /// <summary>What a largest distance is widened by.</summary>
    public double OfLargest => 2 * MaxAbs;

    /// <summary>What a root mean square is widened by.</summary>
    public double OfRms => 2 * Rms;

    /// <summary>The spread of a quantity at the level in use; zero where the case has none for it.</summary>
    /// <param name="golden">The case.</param>
    /// <param name="key">The quantity's key in <c>isa_spread</c>, as the area's README forms it.</param>
    public static IsaSpread Of(GoldenCase golden, string key) => Of(golden, key, CpuLevels.Current);

    /// <summary>The spread of a quantity at a level.</summary>
    public static IsaSpread Of(GoldenCase golden, string key, CpuLevel level)
    {
        if (level == Recorded || !golden.Json.TryGetProperty("isa_spread", out var all) || !all.TryGetProperty(key, out var entry)) return default;
        double largest = entry.GetProperty("max_abs").GetDouble();
        return new IsaSpread(largest, entry.TryGetProperty("rms", out var rms) ? rms.GetDouble() : largest);
    }

    /// <summary>The spread of several quantities taken together, each with its number of elements.</summary>
    public static IsaSpread Joined(IReadOnlyCollection<(IsaSpread Spread, long Count)> parts)
    {
        double count = parts.Sum(p => (double)p.Count);
        return count == 0 ? default : new IsaSpread(parts.Max(p => p.Spread.MaxAbs), Math.Sqrt(parts.Sum(p => p.Spread.Rms * p.Spread.Rms * p.Count) / count));
    }

    /// <summary>What widened the tolerance, for messages.</summary>
    public override string ToString()
        => MaxAbs == 0 && Rms == 0 ? $"not widened at level {CpuLevels.Current}" : $"widened at level {CpuLevels.Current} by 2 x isa_spread (max {MaxAbs:G3}, rms {Rms:G3})";
}
