using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>The two JSON files of a tokenizer as LLaVA's run leaves them: the unknown token pads, on the right, up to the training's length.</summary>
internal static class TokenizerFiles
{
    public static void Copy(string from, string to, int maxLength)
    {
        string? unknown = null;
        if (Read(Path.Combine(from, "tokenizer_config.json")) is { } config)
        {
            unknown = Text(config["unk_token"]);
            config["model_max_length"] = maxLength;
            config["padding_side"] = "right";
            if (unknown is not null) config["pad_token"] = unknown;
            AtomicFile.WriteText(Path.Combine(to, "tokenizer_config.json"), PythonJson.Write(config) + "\n");
        }
        if (Read(Path.Combine(from, "special_tokens_map.json")) is not { } map) return;
        unknown ??= Text(map["unk_token"]);
        if (unknown is not null) map["pad_token"] = unknown;
        AtomicFile.WriteText(Path.Combine(to, "special_tokens_map.json"), PythonJson.Write(map) + "\n");
    }

    private static JsonObject? Read(string path) => File.Exists(path) ? JsonNode.Parse(File.ReadAllBytes(path)) as JsonObject : null;

    // A token stands there as text, or as an object with its content.
    private static string? Text(JsonNode? token) => token is JsonObject o ? (string?)o["content"] : (string?)token;
}
