namespace Peft.Llava;

/// <summary>Reads <c>image_aspect_ratio</c>.</summary>
public static class AspectPolicies
{
    /// <summary>
    /// The policy of a config's word. As in LLaVA everything but <c>pad</c> and <c>anyres</c> means <see cref="AspectPolicy.Square"/>,
    /// except for words of LLaVA's successors that would change the picture's tiles.
    /// </summary>
    /// <param name="word">The config's word, or null if it has none.</param>
    /// <exception cref="ImageProcessorConfigException">The word asks for a policy of a later LLaVA, such as <c>anyres_max_9</c>.</exception>
    public static AspectPolicy Parse(string? word) => word switch
    {
        "pad" => AspectPolicy.Pad,
        "anyres" => AspectPolicy.AnyResolution,
        not null when word.StartsWith("anyres", StringComparison.Ordinal) || word is "highres" or "crop_split"
            => throw new ImageProcessorConfigException("image_aspect_ratio", [$"'{word}' is not supported; pad, anyres and square are."]),
        _ => AspectPolicy.Square,
    };

    /// <summary>The config's word for a policy.</summary>
    /// <param name="policy">The policy.</param>
    public static string ToWord(this AspectPolicy policy) => policy switch
    {
        AspectPolicy.Pad => "pad",
        AspectPolicy.AnyResolution => "anyres",
        _ => "square",
    };
}
