using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The names and shapes that an adapter's file must have for a model: PEFT's, without the adapter's name.</summary>
internal static class AdapterKeys
{
    // PEFT saves the base weight of these layers with an adapter that targets them, since they may have been resized.
    private static readonly string[] EmbeddingNames = ["embed_tokens", "lm_head"];

    /// <summary>One tensor of a file.</summary>
    /// <param name="Key">Its name.</param>
    /// <param name="Shape">Its shape.</param>
    /// <param name="Required">Whether a file without it is at fault.</param>
    /// <param name="IsWhole">Whether it holds whole numbers (a counter) instead of floating-point ones.</param>
    public sealed record Expected(string Key, long[] Shape, bool Required = true, bool IsWhole = false);

    /// <summary>What a file must hold for LoRA on the planned layers.</summary>
    public static IEnumerable<Expected> ForTarget(PlannedTarget target, LoraConfig config, nn.Module original)
    {
        string prefix = $"{ModelNames.Prefix}{target.Path}.";
        long r = target.Rank, outside = target.OutFeatures;
        bool table = target.Kind == TargetKind.Embedding, conv = target.Kind == TargetKind.Conv2d;
        long[] a = conv ? LoraInitializer.ShapeOfA((Conv2d)original, r) : [r, target.InFeatures];
        long[] b = conv ? LoraInitializer.ShapeOfB((Conv2d)original, r) : [outside, r];
        yield return new(prefix + (table ? "lora_embedding_A" : "lora_A.weight"), a);
        yield return new(prefix + (table ? "lora_embedding_B" : "lora_B.weight"), b);
        if (config.LoraBOwnBias) yield return new(prefix + "lora_B.bias", [outside]);
        if (config.UseDora) yield return new(prefix + "lora_magnitude_vector", conv ? [1, outside, 1, 1] : [outside]);
        if (IsEmbeddingName(target.Path) && target.Kind != TargetKind.Conv2d)
            yield return new(prefix + "base_layer.weight", table ? [target.InFeatures, outside] : [outside, target.InFeatures], Required: false);
    }

    /// <summary>Whether a layer's base weight is saved with an adapter that targets it.</summary>
    public static bool SavesBase(LoraConfig config, string path) => config.TrainableTokens is null && IsEmbeddingName(path);

    /// <summary>All faults of a file against what it must hold, one line each.</summary>
    public static List<string> Faults(IReadOnlyDictionary<string, TensorEntry> file, IReadOnlyList<Expected> expected)
    {
        var faults = new List<string>();
        var wanted = expected.ToDictionary(e => e.Key);
        var missing = expected.Where(e => e.Required && !file.ContainsKey(e.Key)).Select(e => e.Key).ToList();
        foreach (var (key, entry) in file)
        {
            if (!wanted.TryGetValue(key, out var want))
                faults.Add($"{key}: the model has no place for it{Nearest(key, missing.Count > 0 ? missing : wanted.Keys.ToList())}");
            else if (!entry.Shape.SequenceEqual(want.Shape))
                faults.Add($"{key}: file has ({string.Join(", ", entry.Shape)}), model wants ({string.Join(", ", want.Shape)})");
            else if (!want.IsWhole && !is_floating_point(entry.Dtype))
                faults.Add($"{key}: file has {entry.DtypeName}, which is no floating-point dtype");
        }
        faults.AddRange(missing.Select(key => $"{key}: missing from file"));
        return faults;
    }

    private static bool IsEmbeddingName(string path) => EmbeddingNames.Contains(path[(path.LastIndexOf('.') + 1)..]);

    private static string Nearest(string key, IReadOnlyCollection<string> candidates)
    {
        // A missing or doubled prefix is far off by characters, but the most likely slip.
        if (candidates.FirstOrDefault(c => c.EndsWith("." + key, StringComparison.Ordinal) || key.EndsWith("." + c, StringComparison.Ordinal)) is { } same) return $"; the nearest is {same}";
        string? best = candidates.MinBy(c => Distance(key, c));
        return best is not null && Distance(key, best) <= Math.Max(3, key.Length / 3) ? $"; the nearest is {best}" : "";
    }

    // Edit distance by characters.
    private static int Distance(string a, string b)
    {
        var row = new int[b.Length + 1];
        for (int j = 0; j <= b.Length; j++) row[j] = j;
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int next = Math.Min(Math.Min(row[j], row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = row[j];
                row[j] = next;
            }
        }
        return row[b.Length];
    }
}
