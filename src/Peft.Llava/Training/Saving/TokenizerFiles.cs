using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// A tokenizer's files as LLaVA's run leaves them: with the tokens that were added for the training, the unknown token as padding where there is
/// no other, padding on the right, and the training's length.
/// </summary>
internal static class TokenizerFiles
{
    private const string ConfigFile = "tokenizer_config.json", SpecialTokensFile = "special_tokens_map.json";
    private static readonly string[] Copied = ["tokenizer.model", "tokenizer.json", "added_tokens.json"];

    /// <summary>All names that a tokenizer's files have.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. Copied, ConfigFile, SpecialTokensFile];

    /// <summary>Writes the tokenizer that the samples were encoded with.</summary>
    /// <exception cref="TokenizerFileException">The files that it was read from are no longer there.</exception>
    public static void Write(LlamaTokenizer tokenizer, string folder, int maxLength, LlavaConfig model)
    {
        var saved = tokenizer.WithModelMaxLength(maxLength).WithPaddingSide("right");
        if (saved is { PadId: null, UnknownId: int unknown }) saved = saved.WithPadToken(saved.TokenOf(unknown));
        Write(saved, folder, model);
    }

    /// <summary>Writes a tokenizer as it is; beside a model in a llava-hf layout with the <c>tokenizer.json</c> that transformers 5 needs.</summary>
    public static void Write(LlamaTokenizer tokenizer, string folder, LlavaConfig model)
    {
        tokenizer.Save(folder);
        if (model.IsHuggingFace) tokenizer.WriteFastFile(folder);
    }

    /// <summary>Copies a folder's tokenizer as it is, with the same addition.</summary>
    public static void Copy(string from, string to, LlavaConfig model)
    {
        OutputFolder.Copy(from, to, Names);
        bool alone = File.Exists(Path.Combine(from, "tokenizer.model")) && !File.Exists(Path.Combine(from, "tokenizer.json"));
        if (model.IsHuggingFace && alone) LlamaTokenizer.FromFolder(to).WriteFastFile(to);
    }

    /// <summary>Copies a base's tokenizer, where the samples do not say how they were encoded.</summary>
    public static void Copy(string from, string to, int maxLength, LlavaConfig model)
    {
        Copy(from, to, model);
        string? unknown = null;
        // LLaVA pads with the unknown token whatever the base has; a llava-hf base keeps its own.
        bool Pads(JsonObject json) => unknown is not null && (!model.IsHuggingFace || json["pad_token"] is null);
        if (Read(Path.Combine(from, ConfigFile)) is { } config)
        {
            unknown = Text(config["unk_token"]);
            config["model_max_length"] = maxLength;
            config["padding_side"] = "right";
            if (Pads(config)) config["pad_token"] = unknown;
            AtomicFile.WriteText(Path.Combine(to, ConfigFile), PythonJson.Write(config) + "\n");
        }
        if (Read(Path.Combine(from, SpecialTokensFile)) is not { } map) return;
        unknown ??= Text(map["unk_token"]);
        if (Pads(map)) map["pad_token"] = unknown;
        AtomicFile.WriteText(Path.Combine(to, SpecialTokensFile), PythonJson.Write(map) + "\n");
    }

    private static JsonObject? Read(string path) => File.Exists(path) ? JsonNode.Parse(File.ReadAllBytes(path)) as JsonObject : null;

    // A token stands there as text, or as an object with its content.
    private static string? Text(JsonNode? token) => token is JsonObject o ? (string?)o["content"] : (string?)token;
}
