using System.Text.Json.Nodes;

namespace Peft.Llava;

public sealed partial class LlamaTokenizer
{
    private const string ModelFile = "tokenizer.model";
    private const string JsonFile = "tokenizer.json";
    private const string PadRole = "pad_token";

    /// <summary>
    /// Reads a checkpoint's tokenizer: <c>tokenizer.model</c> or <c>tokenizer.json</c>, with <c>tokenizer_config.json</c>,
    /// <c>special_tokens_map.json</c> and <c>added_tokens.json</c> where they are there.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="options">What to decide otherwise than the files; null for nothing.</param>
    /// <exception cref="TokenizerFileException">A file is missing, damaged or of an unsupported kind.</exception>
    public static LlamaTokenizer FromFolder(string folder, TokenizerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(folder);
        options ??= new TokenizerOptions();
        string model = Path.Combine(folder, ModelFile), json = Path.Combine(folder, JsonFile);
        bool hasModel = File.Exists(model), hasJson = File.Exists(json);
        if (!hasModel && !hasJson)
        {
            throw new TokenizerFileException(folder, "holds neither tokenizer.model nor tokenizer.json.",
                "Name the folder of a checkpoint, or copy its tokenizer files here.");
        }
        var config = TokenizerConfig.Read(folder);
        var data = hasModel && !(options.PreferJson && hasJson) ? FromModel(model, config, options) : FromJson(json, config, options);
        return new LlamaTokenizer(data with { RawConfig = config.Raw });
    }

    /// <summary>Reads a <c>tokenizer.model</c> alone, with LLaMA's own special tokens.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">The choices; null for none (legacy behaviour, as transformers takes it where no configuration speaks).</param>
    /// <exception cref="TokenizerFileException">The file is missing, damaged or of an unsupported kind.</exception>
    public static LlamaTokenizer FromSentencePiece(string path, TokenizerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        return new LlamaTokenizer(FromModel(path, new TokenizerConfig(), options ?? new TokenizerOptions()));
    }

    /// <summary>Reads a <c>tokenizer.json</c> alone.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">The choices; null for none.</param>
    /// <exception cref="TokenizerFileException">The file is missing, damaged or of an unsupported kind.</exception>
    public static LlamaTokenizer FromTokenizerJson(string path, TokenizerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        return new LlamaTokenizer(FromJson(path, new TokenizerConfig(), options ?? new TokenizerOptions()));
    }

    /// <summary>
    /// Another tokenizer with more tokens; those that are new get the ids from <see cref="Count"/> on, in their order. The embedding must
    /// grow with it (<see cref="EmbeddingResize"/>).
    /// </summary>
    /// <param name="tokens">The tokens' texts; one that is a token already keeps its id.</param>
    /// <param name="special">Whether decoding may leave them out.</param>
    public LlamaTokenizer WithAddedTokens(IEnumerable<string> tokens, bool special = true)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        return new LlamaTokenizer(_data with { Added = Add(_data.Model, _data.Added, tokens.Select(t => (t, special))) });
    }

    /// <summary>Another tokenizer with this padding token, which is added as a special token if it is new.</summary>
    /// <param name="token">The token's text, for example <c>&lt;unk&gt;</c> (LLaVA's choice) or <c>[PAD]</c>.</param>
    public LlamaTokenizer WithPadToken(string token)
    {
        ArgumentException.ThrowIfNullOrEmpty(token);
        return new LlamaTokenizer(_data with
        {
            Added = Add(_data.Model, _data.Added, [(token, true)]),
            Roles = new Dictionary<string, string>(_data.Roles) { [PadRole] = token },
        });
    }

    /// <summary>Another tokenizer with this limit for texts.</summary>
    /// <param name="length">The longest text in tokens, or null for no limit.</param>
    public LlamaTokenizer WithModelMaxLength(int? length) => new(_data with { ModelMaxLength = length });

    /// <summary>Another tokenizer whose configuration names this side for padding, for those who read its files.</summary>
    internal LlamaTokenizer WithPaddingSide(string side)
    {
        var raw = (JsonObject)_data.RawConfig.DeepClone();
        raw["padding_side"] = side;
        return new(_data with { RawConfig = raw });
    }

    /// <summary>Another tokenizer that puts BOS before every text, or doesn't.</summary>
    /// <param name="addBos">Whether it does.</param>
    public LlamaTokenizer WithAddBos(bool addBos) => new(_data with { AddBos = addBos });

    private static TokenizerData FromModel(string path, TokenizerConfig config, TokenizerOptions options)
    {
        var behavior = options.Behavior
            ?? (config.Legacy ?? true ? TokenizerBehavior.SentencePieceLegacy : TokenizerBehavior.SentencePiece);
        var order = behavior switch
        {
            TokenizerBehavior.Fast => MergeOrder.ScoreThenLength,
            TokenizerBehavior.Transformers5 or TokenizerBehavior.Transformers5Legacy => MergeOrder.Id,
            _ => MergeOrder.Score,
        };
        var file = SentencePieceFile.Read(path);
        var merges = MergeTables.FromPieces(file.Pieces, order, out var characters);
        var bytes = new int[256];
        for (int id = 0; id < file.Pieces.Count; id++)
            if (file.Pieces[id].Kind == SentencePieceKind.Byte) bytes[Convert.ToByte(file.Pieces[id].Text[3..5], 16)] = id;
        var whole = file.Pieces.Select((piece, id) => (piece, id)).Where(x => x.piece.Kind == SentencePieceKind.UserDefined)
            .Select(x => new AddedToken(x.piece.Text.Replace(BpeModel.SpaceMark, ' '), x.id, false)).ToList();
        var model = new BpeModel([.. file.Pieces.Select(p => p.Text)], characters, merges)
        {
            ByteIds = bytes,
            AddsDummySpace = file.AddsDummySpace,
            WholePieces = whole.Count > 0 ? new AddedTokenMatcher(whole) : null,
        };
        return Assemble(model, behavior, config, options, [], addBos: true) with { SourceFile = path };
    }

    private static TokenizerData FromJson(string path, TokenizerConfig config, TokenizerOptions options)
    {
        var file = TokenizerJsonFile.Read(path);
        var data = Assemble(file.Model, options.Behavior ?? file.Behavior, config, options, file.AddedTokens, addBos: file.FirstToken is not null);
        data = data with { SourceFile = path };
        if (file.FirstToken is null || data.Roles.ContainsKey("bos_token")) return data;
        return data with { Roles = new Dictionary<string, string>(data.Roles) { ["bos_token"] = file.FirstToken } };
    }

    private static TokenizerData Assemble(
        BpeModel model, TokenizerBehavior behavior, TokenizerConfig config, TokenizerOptions options, List<AddedToken> fromFile, bool addBos)
    {
        var roles = new Dictionary<string, string>(config.Roles);
        if (!model.IsByteLevel)
        {
            foreach (var (role, content) in LlamaRoles)
                if (model.IdOf(content) is not null) roles.TryAdd(role, content);
        }
        // A token's flag "normalized" is that of tokenizer.json, or false where transformers makes the token from the model file itself.
        bool Normalized(AddedToken token) => fromFile.Find(t => t.Id == token.Id)?.IsNormalized ?? (token.IsNormalized && token.Id >= model.Pieces.Count);
        var added = config.Added.Select(t => t with { IsNormalized = Normalized(t) }).Concat(fromFile).DistinctBy(t => t.Id).OrderBy(t => t.Id).ToList();
        var named = roles.Values.Concat(config.AdditionalSpecial).Select(content => (content, true));
        return new TokenizerData
        {
            Model = model,
            Behavior = behavior,
            Added = Add(model, added, named),
            Roles = roles,
            AddBos = options.AddBos ?? config.AddBos ?? addBos,
            AddEos = config.AddEos,
            AddsPrefixSpace = config.AddPrefixSpace,
            ModelMaxLength = options.ModelMaxLength ?? config.ModelMaxLength,
        };
    }

    private static (string Role, string Content)[] LlamaRoles { get; } = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];

    private static List<AddedToken> Add(BpeModel model, IReadOnlyList<AddedToken> existing, IEnumerable<(string Content, bool Special)> more)
    {
        var tokens = existing.ToList();
        int next = Math.Max(model.Pieces.Count, tokens.Select(t => t.Id).Append(-1).Max() + 1);
        foreach (var (content, special) in more)
        {
            int at = tokens.FindIndex(t => t.Content == content);
            if (at >= 0) tokens[at] = tokens[at] with { IsSpecial = tokens[at].IsSpecial || special };
            else tokens.Add(new AddedToken(content, model.IdOf(content) ?? next++, special, IsNormalized: !special));
        }
        tokens.Sort((a, b) => a.Id.CompareTo(b.Id));
        return tokens;
    }
}
