using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// The files of a checkpoint that are neither weights nor <c>config.json</c> nor the tokenizer's: settings of generation and of transformers' processor. What is
/// trained or saved from the checkpoint needs them as well.
/// </summary>
internal static class CompanionFiles
{
    private const string Processor = "processor_config.json";

    /// <summary>The processor's files.</summary>
    public static IReadOnlyList<string> OfProcessor { get; } = ["preprocessor_config.json", Processor, "chat_template.json", "chat_template.jinja"];

    /// <summary>All of them.</summary>
    public static IReadOnlyList<string> Names { get; } = ["generation_config.json", .. OfProcessor];

    /// <summary>Copies those that a folder has. A llava-hf model gets the processor's settings in any case: transformers counts a picture's tokens by them.</summary>
    /// <param name="config">The model's configuration.</param>
    /// <param name="from">The folder; null for none.</param>
    /// <param name="to">The folder that gets them.</param>
    /// <param name="names">Which; null for all.</param>
    public static void Write(LlavaConfig config, string? from, string to, IReadOnlyList<string>? names = null)
    {
        if (from is not null) OutputFolder.Copy(from, to, names ?? Names);
        if (config.IsHuggingFace && (from is null || !File.Exists(Path.Combine(from, Processor))))
            AtomicFile.WriteText(Path.Combine(to, Processor), PythonJson.Write(ProcessorOf(config)) + "\n");
    }

    private static JsonObject ProcessorOf(LlavaConfig config) => new()
    {
        ["image_token"] = LlamaTokenizer.ImagePlaceholder,
        ["num_additional_image_tokens"] = 1,        // CLIP's class token
        ["patch_size"] = config.Vision!.PatchSize,
        ["processor_class"] = config.Layout == CheckpointLayout.HuggingFaceNext ? "LlavaNextProcessor" : "LlavaProcessor",
        ["vision_feature_select_strategy"] = config.KeepClassToken ? "full" : "default",
    };
}
