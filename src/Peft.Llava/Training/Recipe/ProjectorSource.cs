using Peft.Core;

namespace Peft.Llava;

/// <summary>A stage-1 file that a run starts from (<c>--pretrain_mm_mlp_adapter</c>): compared with the model's projector as LLaVA's strict load does.</summary>
internal static class ProjectorSource
{
    public const string Prefix = "model.mm_projector.";
    public const string Embedding = "model.embed_tokens.weight";
    public const string Newline = "model.image_newline";

    /// <summary>The name in the model of a tensor of the file; null for one that is not of the vision side.</summary>
    public static string? NameOf(string key)
        => key.Split("mm_projector.") is [_, var rest] ? Prefix + rest : key.EndsWith(Newline, StringComparison.Ordinal) ? Newline : null;

    /// <summary>The file's key of the embedding whose last rows are those of the start and end ids, or null.</summary>
    public static string? EmbeddingKey(ITensorReader file) => file.Entries.Keys.FirstOrDefault(k => k.EndsWith("embed_tokens.weight", StringComparison.Ordinal));

    /// <exception cref="CheckpointMismatchException">The file's projector is not the model's.</exception>
    public static void Check(ITensorReader file, string path, IEnumerable<TensorSpec> manifest, bool wantsRows)
    {
        var given = file.Entries.Keys.Where(k => NameOf(k)?.StartsWith(Prefix, StringComparison.Ordinal) == true).ToDictionary(k => NameOf(k)!);
        var wanted = manifest.Where(s => s.Name.StartsWith(Prefix, StringComparison.Ordinal)).ToList();
        var faults = new CheckpointFaults();
        foreach (var spec in wanted)
        {
            if (!given.TryGetValue(spec.Name, out string? key)) faults.Missing(spec.Name);
            else faults.CheckShape(key, spec.Shape, file.Entries[key].Shape);
        }
        foreach (string name in given.Keys.Except(wanted.Select(s => s.Name))) faults.Unexpected(given[name]);
        if (wantsRows && EmbeddingKey(file) is null) faults.Missing(Embedding);
        string? type = TypeOf(given.Keys);
        faults.ThrowIfAny(path, type is null
            ? "A file of LLaVA's first stage holds the projector under model.mm_projector, and with --mm_use_im_start_end True the embedding too; check --pretrain_mm_mlp_adapter."
            : $"The file's projector is {type}: on a language model give --mm_projector_type {type}, and check that the widths are those of the tower and the base.");
    }

    // What the names show: linear has weight and bias alone, an MLP one number per layer and one between two for the activation.
    private static string? TypeOf(IEnumerable<string> names)
    {
        string[] rests = [.. names.Select(n => n[Prefix.Length..])];
        if (rests.Length == 0) return null;
        return rests.Contains("weight") ? "linear" : $"mlp{rests.Count(r => r.EndsWith(".weight", StringComparison.Ordinal))}x_gelu";
    }
}
