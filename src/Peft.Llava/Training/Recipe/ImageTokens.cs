namespace Peft.Llava;

/// <summary>The tokens that LLaVA's flags add to a base's tokenizer, and for which its tables get rows (<c>initialize_vision_tokenizer</c>).</summary>
internal static class ImageTokens
{
    /// <summary>A token that stands in no text; LLaVA adds it by default.</summary>
    public const string Patch = "<im_patch>";

    /// <summary>Whether the run puts a tower on the base; only then LLaVA looks at these flags. A llava-hf model has all its tokens.</summary>
    public static bool GetsTower(LlavaArguments arguments, LlavaConfig own)
        => arguments.Model.VisionTower is not null && own.Layout is not (CheckpointLayout.HuggingFace or CheckpointLayout.HuggingFaceNext);

    /// <summary>Whether start and end ids go around pictures: as the flag says, and as the base was trained where it is left out.</summary>
    public static bool UsesStartEnd(LlavaArguments arguments, LlavaConfig own) => arguments.Model.UseImageStartEnd ?? own.UseImageStartEnd;

    /// <summary>The base's tokenizer with the tokens that the flags ask for; those that it has keep their ids.</summary>
    /// <param name="tokenizer">The base's tokenizer.</param>
    /// <param name="arguments">The arguments.</param>
    /// <param name="own">The base's configuration.</param>
    /// <exception cref="TrainingOptionsException">There would be no rows for them, or not theirs.</exception>
    public static LlamaTokenizer Extend(LlamaTokenizer tokenizer, LlavaArguments arguments, LlavaConfig own)
    {
        string[] wanted =
        [
            .. arguments.Model.UseImagePatchToken ? [Patch] : Array.Empty<string>(),
            .. UsesStartEnd(arguments, own) ? [MultimodalText.ImageStart, MultimodalText.ImageEnd] : Array.Empty<string>(),
        ];
        string[] missing = [.. wanted.Where(t => tokenizer.IdOf(t) is null)];
        if (missing.Length == 0) return tokenizer;
        if (!GetsTower(arguments, own))
        {
            if (missing is [Patch]) return tokenizer;
            throw new TrainingOptionsException([$"--mm_use_im_start_end True writes {MultimodalText.ImageStart} and {MultimodalText.ImageEnd} around pictures, which the base has no rows for; "
                + "they are added where --vision_tower puts a tower on a base in the original layout. Give --mm_use_im_start_end False"]);
        }
        if (own.Language.VocabularySize != tokenizer.Count)
            throw new TrainingOptionsException([$"{string.Join(", ", missing)} would be added as id {tokenizer.Count} and on, where the base's tokenizer ends, but its embedding ends at row "
                + $"{own.Language.VocabularySize}; give --mm_use_im_patch_token False and --mm_use_im_start_end False, or bring the base to the tokenizer's size (LlavaModel.ResizeTokenEmbeddings, "
                + "SavePretrained)"]);
        return tokenizer.WithAddedTokens(wanted);
    }
}
