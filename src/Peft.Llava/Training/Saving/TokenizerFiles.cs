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
    public static void Write(LlamaTokenizer tokenizer, string folder, int maxLength)
    {
        var saved = tokenizer.WithModelMaxLength(maxLength).WithPaddingSide("right");
        if (saved is { PadId: null, UnknownId: int unknown }) saved = saved.WithPadToken(saved.TokenOf(unknown));
        saved.Save(folder);
    }

    /// <summary>Copies a base's tokenizer, where the samples do not say how they were encoded.</summary>
    public static void Copy(string from, string to, int maxLength)
    {
        OutputFolder.Copy(from, to, Copied);
        string? unknown = null;
        if (Read(Path.Combine(from, ConfigFile)) is { } config)
        {
            unknown = Text(config["unk_token"]);
            config["model_max_length"] = maxLength;
            config["padding_side"] = "right";
            if (unknown is not null) config["pad_token"] = unknown;
            AtomicFile.WriteText(Path.Combine(to, ConfigFile), PythonJson.Write(config) + "\n");
        }
        if (Read(Path.Combine(from, SpecialTokensFile)) is not { } map) return;
        unknown ??= Text(map["unk_token"]);
        if (unknown is not null) map["pad_token"] = unknown;
        AtomicFile.WriteText(Path.Combine(to, SpecialTokensFile), PythonJson.Write(map) + "\n");
    }

    private static JsonObject? Read(string path) => File.Exists(path) ? JsonNode.Parse(File.ReadAllBytes(path)) as JsonObject : null;

    // A token stands there as text, or as an object with its content.
    private static string? Text(JsonNode? token) => token is JsonObject o ? (string?)o["content"] : (string?)token;
}
