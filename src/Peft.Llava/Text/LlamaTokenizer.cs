namespace Peft.Llava;

/// <summary>
/// LLaMA's tokenizer (and byte-level ones of the MPT kind): text to ids with the span of text that each id stands for, and back. It never
/// changes after it is made, so threads may share it; the <c>With…</c> methods give another one.
/// </summary>
/// <remarks>
/// Ids equal those of the Python tokenizers, by the <see cref="Behavior"/> chosen. No text is normalised: other Unicode forms give other ids.
/// </remarks>
public sealed partial class LlamaTokenizer
{
    /// <summary>The id that stands for an image in ids made by <see cref="TokenizeWithImages"/>.</summary>
    public const int ImageTokenId = -200;

    /// <summary>The text that stands for an image.</summary>
    public const string ImagePlaceholder = "<image>";

    private readonly TokenizerData _data;
    private readonly AddedTokenMatcher _matcher;
    private readonly NormalizedTokenMatcher? _normalizedMatcher;
    private readonly Dictionary<int, AddedToken> _addedById;

    internal LlamaTokenizer(TokenizerData data)
    {
        _data = data;
        bool normalizes = data is { Behavior: TokenizerBehavior.Fast, Model.IsByteLevel: false, AddsPrefixSpace: true };
        _matcher = new AddedTokenMatcher(data.Added.Where(t => !(normalizes && t.IsNormalized)));
        _normalizedMatcher = normalizes ? NormalizedTokenMatcher.Of(data.Added.Where(t => t.IsNormalized)) : null;
        _addedById = data.Added.ToDictionary(t => t.Id);
        Count = Math.Max(data.Model.Pieces.Count, data.Added.Select(t => t.Id).Append(-1).Max() + 1);
        BosId = RoleId("bos_token");
        EosId = RoleId("eos_token");
        UnknownId = RoleId("unk_token");
        PadId = RoleId("pad_token");
    }

    /// <summary>The peer followed where peers differ.</summary>
    public TokenizerBehavior Behavior => _data.Behavior;

    /// <summary>True for byte-level tokenizers (MPT, GPT-NeoX), which know neither dummy spaces nor <see cref="Behavior"/>.</summary>
    public bool IsByteLevel => _data.Model.IsByteLevel;

    /// <summary>Number of pieces of the model, without added tokens.</summary>
    public int VocabularySize => _data.Model.Pieces.Count;

    /// <summary>Number of ids, with added tokens: the rows an embedding needs.</summary>
    public int Count { get; }

    /// <summary>BOS, or null.</summary>
    public int? BosId { get; }

    /// <summary>EOS, or null.</summary>
    public int? EosId { get; }

    /// <summary>The unknown token, or null.</summary>
    public int? UnknownId { get; }

    /// <summary>The padding token, or null: LLaVA takes the unknown token then (<see cref="WithPadToken"/>).</summary>
    public int? PadId { get; }

    /// <summary>Whether BOS goes before every text.</summary>
    public bool AddsBos => _data.AddBos;

    /// <summary>The longest text in tokens, or null.</summary>
    public int? ModelMaxLength => _data.ModelMaxLength;

    /// <summary>The added tokens, in the order of their ids.</summary>
    public IReadOnlyList<AddedToken> AddedTokens => _data.Added;

    /// <summary>A text's ids.</summary>
    /// <param name="text">The text; the empty one gives BOS alone.</param>
    /// <param name="addSpecialTokens">Whether BOS (and EOS where the files ask for it) is added.</param>
    /// <exception cref="InvalidTextException">The text holds half a surrogate pair.</exception>
    public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true) => Tokenize(text, addSpecialTokens).Ids;

    /// <summary>A text's ids with their spans.</summary>
    /// <inheritdoc cref="Encode"/>
    public TokenizedText Tokenize(string text, bool addSpecialTokens = true)
    {
        ArgumentNullException.ThrowIfNull(text);
        var encoder = NewEncoder();
        EmitFirst(encoder, addSpecialTokens);
        encoder.Encode(text, 0, _matcher);
        EmitLast(encoder, addSpecialTokens);
        return new TokenizedText(encoder.Ids, encoder.Spans);
    }

    /// <summary>
    /// A prompt's ids with <see cref="ImageTokenId"/> for each <c>&lt;image&gt;</c> (LLaVA's <c>tokenizer_image_token</c>): every part
    /// between images is a text of its own, so it has its own dummy space, and only the first keeps its BOS.
    /// </summary>
    /// <inheritdoc cref="Encode"/>
    public TokenizedText TokenizeWithImages(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var encoder = NewEncoder();
        EmitFirst(encoder, true);
        int from = 0;
        while (true)
        {
            int at = text.IndexOf(ImagePlaceholder, from, StringComparison.Ordinal);
            encoder.Encode(text[from..(at < 0 ? text.Length : at)], from, _matcher);
            if (at < 0) break;
            from = at + ImagePlaceholder.Length;
            encoder.Emit(ImageTokenId, new TextSpan(at, from));
        }
        EmitLast(encoder, true);
        return new TokenizedText(encoder.Ids, encoder.Spans);
    }

    /// <summary>Ids to text.</summary>
    /// <param name="ids">The ids.</param>
    /// <param name="options">Which tokens and spaces are left out; null for the defaults.</param>
    /// <exception cref="TokenIdException">An id is no token.</exception>
    public string Decode(IReadOnlyList<int> ids, DecodeOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(ids);
        options ??= new DecodeOptions();
        var tokens = new List<TokenDecoder.Token>(ids.Count);
        for (int i = 0; i < ids.Count; i++)
        {
            if (ids[i] < 0 || ids[i] >= Count) throw new TokenIdException(ids[i], i, Count);
            if (options.SkipSpecialTokens && IsSpecial(ids[i])) continue;
            tokens.Add(DecodableToken(ids[i]));
        }
        bool sentencePiece = Behavior is TokenizerBehavior.SentencePiece or TokenizerBehavior.SentencePieceLegacy;
        bool legacy = Behavior == TokenizerBehavior.SentencePieceLegacy;
        string text = IsByteLevel ? TokenDecoder.ByteLevel(tokens)
            : sentencePiece ? TokenDecoder.SentencePieceText(tokens, legacy, legacy && _data.Model.AddsDummySpace, options.SpacesBetweenAddedTokens)
            : TokenDecoder.FusedText(tokens);
        bool cleansUp = options.CleanUpSpaces && Behavior is not (TokenizerBehavior.Transformers5 or TokenizerBehavior.Transformers5Legacy);
        return cleansUp ? TokenDecoder.CleanUp(text) : text;
    }

    /// <summary>A token's text: its piece (with <c>▁</c> for a space) or its content.</summary>
    /// <exception cref="TokenIdException">The id is no token.</exception>
    public string TokenOf(int id)
    {
        if (id < 0 || id >= Count) throw new TokenIdException(id, 0, Count);
        return _addedById.TryGetValue(id, out var added) ? added.Content : id < VocabularySize ? _data.Model.Pieces[id] : "";
    }

    /// <summary>The id of a piece or added token, or null.</summary>
    public int? IdOf(string token) => AddedTokens.FirstOrDefault(t => t.Content == token)?.Id ?? _data.Model.IdOf(token);

    /// <summary>True for BOS, EOS, unknown, padding and the added tokens marked special.</summary>
    public bool IsSpecial(int id) => _addedById.TryGetValue(id, out var token) && token.IsSpecial;

    private int? RoleId(string role) => _data.Roles.TryGetValue(role, out string? content) ? IdOf(content) : null;

    private TokenEncoder NewEncoder()
    {
        bool adds = Behavior == TokenizerBehavior.SentencePieceLegacy ? _data.Model.AddsDummySpace : _data.AddsPrefixSpace;
        return new TokenEncoder(_data.Model, Behavior, adds, _normalizedMatcher);
    }

    private void EmitFirst(TokenEncoder encoder, bool wanted)
    {
        if (wanted && _data.AddBos && BosId is { } bos) encoder.Emit(bos, TextSpan.None);
    }

    private void EmitLast(TokenEncoder encoder, bool wanted)
    {
        if (wanted && _data.AddEos && EosId is { } eos) encoder.Emit(eos, TextSpan.None);
    }

    private TokenDecoder.Token DecodableToken(int id)
    {
        if (!_addedById.TryGetValue(id, out var added))
            return new TokenDecoder.Token(TokenOf(id), _data.Model.ByteOf(id), false, false);
        bool hasRole = _data.Roles.Values.Contains(added.Content);
        return new TokenDecoder.Token(added.Content, -1, added.IsSpecial, !added.IsSpecial || (!hasRole && id >= VocabularySize));
    }
}
