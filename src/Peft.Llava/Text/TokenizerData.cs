using System.Text.Json.Nodes;

namespace Peft.Llava;

/// <summary>What a tokenizer is made of; the tokenizers made from one another share the model.</summary>
internal sealed record TokenizerData
{
    public required BpeModel Model { get; init; }

    public required TokenizerBehavior Behavior { get; init; }

    /// <summary>Added tokens by ascending id.</summary>
    public required IReadOnlyList<AddedToken> Added { get; init; }

    /// <summary>Contents by role (<c>bos_token</c>, <c>eos_token</c>, <c>unk_token</c>, <c>pad_token</c> …).</summary>
    public required IReadOnlyDictionary<string, string> Roles { get; init; }

    public required bool AddBos { get; init; }

    public required bool AddEos { get; init; }

    public required bool AddsPrefixSpace { get; init; }

    public required int? ModelMaxLength { get; init; }

    /// <summary>tokenizer_config.json as it was read.</summary>
    public JsonObject RawConfig { get; init; } = [];

    /// <summary>The model file the tokenizer was read from; null for one made in memory.</summary>
    public string? SourceFile { get; init; }

    /// <summary>The pieces of one made in memory, to save it.</summary>
    public IReadOnlyList<SentencePiece>? Pieces { get; init; }
}
