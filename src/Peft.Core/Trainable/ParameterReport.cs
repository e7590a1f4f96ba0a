using System.Globalization;

namespace Peft.Core;

/// <summary>The parameters of one part of a model.</summary>
/// <param name="Name">The part: the first segments of the outer path, or an adapter's name.</param>
/// <param name="Trainable">Elements that are trained.</param>
/// <param name="Frozen">Elements that are not.</param>
/// <param name="Bytes">Bytes of both as stored.</param>
public sealed record ParameterGroupCount(string Name, long Trainable, long Frozen, long Bytes);

/// <summary>What is trained, frozen and stored in a model with adapters.</summary>
/// <param name="Base">The base by parts.</param>
/// <param name="Adapters">Each adapter.</param>
/// <param name="Active">The active adapters.</param>
/// <param name="Merged">The merged adapters.</param>
/// <param name="Irregularities">What was noticed and is no fault.</param>
public sealed record ParameterReport(
    IReadOnlyList<ParameterGroupCount> Base,
    IReadOnlyList<ParameterGroupCount> Adapters,
    IReadOnlyList<string> Active,
    IReadOnlyList<string> Merged,
    IReadOnlyList<string> Irregularities)
{
    /// <summary>Elements that are trained.</summary>
    public long Trainable => Base.Concat(Adapters).Sum(g => g.Trainable);

    /// <summary>All elements.</summary>
    public long Total => Base.Concat(Adapters).Sum(g => g.Trainable + g.Frozen);

    /// <summary>Bytes of all elements as stored.</summary>
    public long Bytes => Base.Concat(Adapters).Sum(g => g.Bytes);

    /// <summary>PEFT's sentence, then the parts.</summary>
    /// <returns>The text.</returns>
    public override string ToString()
    {
        var lines = new List<string>
        {
            string.Create(CultureInfo.InvariantCulture,
                $"trainable params: {Trainable:N0} || all params: {Total:N0} || trainable%: {(Total == 0 ? 0 : 100.0 * Trainable / Total):F4}"),
        };
        lines.AddRange(Base.Select(g => Line("base " + g.Name, g)));
        lines.AddRange(Adapters.Select(g => Line($"adapter {g.Name}{(Active.Contains(g.Name) ? " (active)" : "")}{(Merged.Contains(g.Name) ? " (merged)" : "")}", g)));
        lines.AddRange(Irregularities.Select(i => "note: " + i));
        return string.Join('\n', lines);
    }

    internal static ParameterReport Of(PeftModel model)
    {
        var adapters = model.AdapterNames.ToDictionary(a => a, _ => new long[3]);
        var parts = new OrderedDictionary<string, long[]>();
        var owners = new Dictionary<IntPtr, string>();
        foreach (var host in model.Hosts)
        {
            foreach (string adapter in host.AdapterNames)
                foreach (var tensor in host.TensorsOf(adapter)) owners[tensor.Tensor.Handle] = adapter;
        }
        foreach (var (name, parameter) in model.NamedParameters())
        {
            long[]? counts;
            if (owners.TryGetValue(parameter.Handle, out string? adapter)) counts = adapters[adapter];
            else
            {
                string part = PartOf(name[ModelNames.Prefix.Length..]);
                if (!parts.TryGetValue(part, out counts)) parts[part] = counts = new long[3];
            }
            counts[parameter.requires_grad ? 0 : 1] += parameter.numel();
            counts[2] += parameter.numel() * parameter.element_size();
        }
        // A packed weight is no parameter: its values are counted, not its bytes, as PEFT does.
        foreach (var (name, layer) in model.PackedLayers())
        {
            string part = PartOf(name);
            if (!parts.TryGetValue(part, out var counts)) parts[part] = counts = new long[3];
            counts[1] += layer.InFeatures * layer.OutFeatures;
            counts[2] += layer.StoredBytes;
        }
        return new ParameterReport(
            [.. parts.Select(p => new ParameterGroupCount(p.Key, p.Value[0], p.Value[1], p.Value[2]))],
            [.. adapters.Select(a => new ParameterGroupCount(a.Key, a.Value[0], a.Value[1], a.Value[2]))],
            [.. model.ActiveAdapters], [.. model.MergedAdapters], [.. model.Irregularities]);
    }

    // "model.layers.3.mlp…" belongs to "model.layers", "lm_head.weight" to "lm_head".
    private static string PartOf(string name)
    {
        string[] segments = name.Split('.');
        return segments.Length > 2 && segments[0] is "model" or "transformer" ? $"{segments[0]}.{segments[1]}" : segments[0];
    }

    private static string Line(string what, ParameterGroupCount g) => string.Create(CultureInfo.InvariantCulture,
        $"{what}: {g.Trainable:N0} trained, {g.Frozen:N0} frozen, {g.Bytes:N0} bytes");
}
