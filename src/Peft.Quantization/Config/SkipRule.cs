using System.Text.RegularExpressions;

namespace Peft.Quantization;

/// <summary>How a name of the skip list matches a layer's path.</summary>
public enum SkipRule
{
    /// <summary>The name is a run of whole parts of the path: <c>vision_tower</c> matches <c>model.vision_tower.encoder.…</c>, <c>head</c> does not match <c>lm_head</c>.</summary>
    PathParts,

    /// <summary>
    /// transformers 5: a regular expression at the start of the path that ends before a dot, or the end of the path. <c>vision_tower</c> does
    /// not match <c>model.vision_tower.encoder.…</c>.
    /// </summary>
    Transformers5,

    /// <summary>transformers 4.37: the text anywhere in the path.</summary>
    Substring,
}

internal static class SkipRules
{
    public static bool Matches(this SkipRule rule, string name, string path) => rule switch
    {
        SkipRule.Transformers5 => path.EndsWith(name, StringComparison.Ordinal) || Regex.IsMatch(path, $@"\A(?:{name})\.", RegexOptions.CultureInvariant),
        SkipRule.Substring => path.Contains(name, StringComparison.Ordinal),
        _ => $".{path}.".Contains($".{name}.", StringComparison.Ordinal),
    };
}
