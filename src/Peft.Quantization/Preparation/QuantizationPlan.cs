using System.Globalization;
using System.Text;

namespace Peft.Quantization;

/// <summary>What quantising does to one linear layer.</summary>
/// <param name="Path">Its path.</param>
/// <param name="OutFeatures">Rows of its weight.</param>
/// <param name="InFeatures">Columns of its weight.</param>
/// <param name="Form">What it becomes: <c>nf4</c>, <c>fp4</c>, <c>int8</c>, or null where it stays as it is.</param>
/// <param name="DenseBytes">Bytes before, at the dtype loaded.</param>
/// <param name="Bytes">Bytes after.</param>
public sealed record PlannedLayer(string Path, long OutFeatures, long InFeatures, string? Form, long DenseBytes, long Bytes);

/// <summary>What quantising would do to a model, before anything is done. Prints as a table.</summary>
/// <param name="Layers">Every linear layer, in the model's order.</param>
public sealed record QuantizationPlan(IReadOnlyList<PlannedLayer> Layers)
{
    /// <summary>Bytes of all linear weights before.</summary>
    public long DenseBytes => Layers.Sum(l => l.DenseBytes);

    /// <summary>Bytes of all linear weights after.</summary>
    public long Bytes => Layers.Sum(l => l.Bytes);

    /// <summary>The table: layers that differ only in their number share a line.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        foreach (var group in Layers.GroupBy(l => (Name: WithoutNumbers(l.Path), l.Form, l.OutFeatures, l.InFeatures)))
        {
            text.Append(CultureInfo.InvariantCulture, $"{group.Key.Form ?? "dense",-6} {group.Count(),4} x {group.Key.Name} ({group.Key.OutFeatures}, {group.Key.InFeatures})");
            text.Append(CultureInfo.InvariantCulture, $": {Mib(group.Sum(l => l.DenseBytes))} -> {Mib(group.Sum(l => l.Bytes))}\n");
        }
        return text.Append(CultureInfo.InvariantCulture, $"linear weights: {Mib(DenseBytes)} -> {Mib(Bytes)}").ToString();
    }

    private static string WithoutNumbers(string path)
        => string.Join('.', path.Split('.').Select(part => long.TryParse(part, out _) ? "*" : part));

    private static string Mib(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:0.##} MiB");
}
