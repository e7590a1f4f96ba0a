namespace Peft.Llava;

/// <summary>The ways in which transformers has named the tensors of a llava-hf checkpoint over the years.</summary>
public enum HuggingFaceKeyStyle
{
    /// <summary>The module tree of transformers 5: <c>model.language_model.layers…</c>, <c>model.vision_tower.encoder…</c>, <c>lm_head</c>.</summary>
    ModuleTree5,

    /// <summary>The module tree of late transformers 4: as 5, but <c>model.vision_tower.vision_model.encoder…</c>.</summary>
    ModuleTree4Late,

    /// <summary>The classic names of the published checkpoints: <c>language_model.model.layers…</c>, <c>vision_tower.vision_model…</c>.</summary>
    Classic,

    /// <summary>What transformers 5 writes for a model built in memory: as classic, but <c>vision_tower.encoder…</c>.</summary>
    WrittenBy5,
}

/// <summary>Translates between names in memory (the original layout's) and those of a llava-hf checkpoint, both ways.</summary>
public static class HuggingFaceKeys
{
    private const string Tower = "model.vision_tower.vision_tower.vision_model.";
    private const string Projector = "model.mm_projector.";

    /// <summary>The name in a style.</summary>
    /// <param name="name">A tensor's or module's name in memory.</param>
    /// <param name="style">The style.</param>
    /// <returns>The outer name; a name that belongs to no part of the model comes back as it is.</returns>
    public static string ToExternal(string name, HuggingFaceKeyStyle style)
    {
        ArgumentNullException.ThrowIfNull(name);
        var p = Prefixes.Of(style);
        if (Under(name, Tower, out string rest)) return p.Tower + rest;
        if (Under(name, Projector, out rest))
        {
            string index = rest.Split('.')[0];
            return int.TryParse(index, out int layer) ? $"{p.Root}multi_modal_projector.linear_{layer / 2 + 1}{rest[index.Length..]}" : name;
        }
        if (name == "model.mm_projector") return p.Root + "multi_modal_projector";
        if (name == "model.image_newline") return p.Root + "image_newline";
        if (name == "lm_head" || name.StartsWith("lm_head.", StringComparison.Ordinal)) return p.Head + name;
        return Under(name, "model.", out rest) && !rest.StartsWith("vision_tower", StringComparison.Ordinal) ? p.Language + rest : name;
    }

    /// <summary>The name in memory.</summary>
    /// <param name="name">A tensor's or module's name in the style.</param>
    /// <param name="style">The style.</param>
    /// <returns>The name in memory, or null if the style has no such name.</returns>
    public static string? ToInternal(string name, HuggingFaceKeyStyle style)
    {
        ArgumentNullException.ThrowIfNull(name);
        var p = Prefixes.Of(style);
        if (Under(name, p.Tower, out string rest)) return Tower + rest;
        if (Under(name, p.Root + "multi_modal_projector.linear_", out rest))
        {
            string number = rest.Split('.')[0];
            return int.TryParse(number, out int layer) && layer > 0 ? $"{Projector}{2 * (layer - 1)}{rest[number.Length..]}" : null;
        }
        if (name == p.Root + "multi_modal_projector") return "model.mm_projector";
        if (name == p.Root + "image_newline") return "model.image_newline";
        if (Under(name, p.Language, out rest)) return "model." + rest;
        return Under(name, p.Head, out rest) && (rest == "lm_head" || rest.StartsWith("lm_head.", StringComparison.Ordinal)) ? rest : null;
    }

    /// <summary>The style of a file.</summary>
    /// <param name="names">All its names.</param>
    /// <returns>The style, or null if the names are none of a llava-hf checkpoint.</returns>
    public static HuggingFaceKeyStyle? Detect(IEnumerable<string> names)
    {
        ArgumentNullException.ThrowIfNull(names);
        var all = names.ToList();
        bool Any(string prefix) => all.Any(n => n.StartsWith(prefix, StringComparison.Ordinal));
        if (Any("model.language_model."))
            return Any("model.vision_tower.vision_model.") ? HuggingFaceKeyStyle.ModuleTree4Late : HuggingFaceKeyStyle.ModuleTree5;
        if (Any("language_model.model."))
            return Any("vision_tower.vision_model.") ? HuggingFaceKeyStyle.Classic : HuggingFaceKeyStyle.WrittenBy5;
        return null;
    }

    /// <summary>The style of an adapter's names, which may be of one part only; where that part has the same names in two styles, either.</summary>
    internal static HuggingFaceKeyStyle? DetectAdapter(IReadOnlyCollection<string> names)
    {
        bool Any(params string[] prefixes) => names.Any(n => prefixes.Any(p => n.StartsWith(p, StringComparison.Ordinal)));
        if (Any("model.language_model.", "model.vision_tower.", "model.multi_modal_projector."))
            return Any("model.vision_tower.vision_model.") ? HuggingFaceKeyStyle.ModuleTree4Late : HuggingFaceKeyStyle.ModuleTree5;
        if (!Any("language_model.", "vision_tower.", "multi_modal_projector.")) return null;
        return Any("vision_tower.") && !Any("vision_tower.vision_model.") ? HuggingFaceKeyStyle.WrittenBy5 : HuggingFaceKeyStyle.Classic;
    }

    private static bool Under(string name, string prefix, out string rest)
    {
        bool under = name.StartsWith(prefix, StringComparison.Ordinal);
        rest = under ? name[prefix.Length..] : "";
        return under;
    }

    private sealed record Prefixes(string Root, string Language, string Tower, string Head)
    {
        public static Prefixes Of(HuggingFaceKeyStyle style) => style switch
        {
            HuggingFaceKeyStyle.ModuleTree5 => new("model.", "model.language_model.", "model.vision_tower.", ""),
            HuggingFaceKeyStyle.ModuleTree4Late => new("model.", "model.language_model.", "model.vision_tower.vision_model.", ""),
            HuggingFaceKeyStyle.Classic => new("", "language_model.model.", "vision_tower.vision_model.", "language_model."),
            _ => new("", "language_model.model.", "vision_tower.", "language_model."),
        };
    }
}
