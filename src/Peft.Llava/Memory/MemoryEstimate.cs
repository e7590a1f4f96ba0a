using System.Globalization;
using System.Text;

namespace Peft.Llava;

/// <summary>The memory that a training will take, told before anything is loaded.</summary>
/// <param name="Moments">The moments of a step (not the first, whose optimizer state is being made) that can be the largest.</param>
/// <param name="TrainedElements">Elements that are trained.</param>
/// <param name="BaseElements">Elements of the base.</param>
public sealed record MemoryEstimate(IReadOnlyList<MemoryMoment> Moments, long TrainedElements, long BaseElements)
{
    private static readonly (string Name, Func<MemoryMoment, long> Of)[] Parts =
    [
        ("base", m => m.Base), ("adapter", m => m.Adapter), ("optimizer", m => m.Optimizer), ("gradients", m => m.Gradients),
        ("activations", m => m.Activations), ("vision", m => m.Vision), ("logits", m => m.Logits), ("runtime", m => m.Runtime),
    ];

    /// <summary>The largest moment.</summary>
    public MemoryMoment Peak => Moments.MaxBy(m => m.Total)!;

    /// <summary>Bytes at the largest moment.</summary>
    public long PeakBytes => Peak.Total;

    /// <summary>A table: a row per part, a column per moment, in MB (10^6 bytes); the largest moment is marked.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"{"MB",-12}");
        foreach (var moment in Moments) text.Append(CultureInfo.InvariantCulture, $"{moment.Name + (moment == Peak ? "*" : ""),12}");
        foreach (var (name, of) in Parts.Append(("total", m => m.Total)))
        {
            text.Append(CultureInfo.InvariantCulture, $"\n{name,-12}");
            foreach (var moment in Moments) text.Append(CultureInfo.InvariantCulture, $"{of(moment) / 1e6,12:F0}");
        }
        text.Append(CultureInfo.InvariantCulture, $"\n{BaseElements / 1e6:F1} M elements in the base, {TrainedElements / 1e6:F1} M trained; * is the peak");
        return text.ToString();
    }
}
