namespace Peft.Llava;

/// <summary>What joining two neighbouring symbols gives: lower ranks join first.</summary>
internal readonly record struct BpeMerge(int Rank, int Symbol);

/// <summary>
/// A byte-pair vocabulary ready to encode: pieces by id, symbols of single characters, and the table of merges. A symbol is a piece's id,
/// or a number from <c>Pieces.Count</c> on for a character that is no piece but occurs in one.
/// </summary>
internal sealed class BpeModel
{
    /// <summary>How SentencePiece writes a space.</summary>
    public const char SpaceMark = '\u2581';

    private readonly int[] _bmp;
    private readonly Dictionary<int, int> _beyond = [];
    private readonly Lazy<Dictionary<string, int>> _ids;
    private readonly Lazy<Dictionary<int, byte>> _bytes;
    private readonly Lazy<bool> _wordByWord;

    public BpeModel(IReadOnlyList<string> pieces, IReadOnlyDictionary<int, int> characters, Dictionary<ulong, BpeMerge> merges)
    {
        Pieces = pieces;
        Merges = merges;
        _ids = new(() =>
        {
            var ids = new Dictionary<string, int>(pieces.Count, StringComparer.Ordinal);
            for (int id = 0; id < pieces.Count; id++) ids.TryAdd(pieces[id], id);
            return ids;
        });
        _wordByWord = new(() => !pieces.Any(p => p.AsSpan().TrimStart(SpaceMark).Contains(SpaceMark)));
        _bytes = new(() => ByteIds!.Select((id, value) => (id, value)).ToDictionary(x => x.id, x => (byte)x.value));
        _bmp = new int[0x10000];
        Array.Fill(_bmp, -1);
        foreach (var (codePoint, symbol) in characters)
        {
            if (codePoint < _bmp.Length) _bmp[codePoint] = symbol;
            else _beyond[codePoint] = symbol;
        }
    }

    /// <summary>The pieces' texts, by id.</summary>
    public IReadOnlyList<string> Pieces { get; }

    /// <summary>Merges by <see cref="Key"/>.</summary>
    public Dictionary<ulong, BpeMerge> Merges { get; }

    /// <summary>Ids of the 256 byte pieces.</summary>
    public required IReadOnlyList<int> ByteIds { get; init; }

    /// <summary>True if the pieces are made of the byte alphabet of GPT-2 instead of characters and byte pieces.</summary>
    public bool IsByteLevel { get; init; }

    /// <summary>Pieces that are found whole and never join with others, or null.</summary>
    public AddedTokenMatcher? WholePieces { get; init; }

    /// <summary>False if the model says that no dummy space goes before a text.</summary>
    public bool AddsDummySpace { get; init; } = true;

    /// <summary>
    /// True if no piece holds a space after another character (as in every LLaMA vocabulary): then no merge crosses the beginning of a
    /// word, and words can be joined one by one.
    /// </summary>
    public bool JoinsWordByWord => _wordByWord.Value;

    /// <summary>The symbol of a character, or -1.</summary>
    public int SymbolOf(int codePoint)
        => codePoint < _bmp.Length ? _bmp[codePoint] : _beyond.TryGetValue(codePoint, out int symbol) ? symbol : -1;

    /// <summary>The id of a piece, or null.</summary>
    public int? IdOf(string piece) => _ids.Value.TryGetValue(piece, out int id) ? id : null;

    /// <summary>The byte that a byte piece stands for, or -1.</summary>
    public int ByteOf(int id) => _bytes.Value.TryGetValue(id, out byte value) ? value : -1;

    /// <summary>The key of a pair of symbols.</summary>
    public static ulong Key(int left, int right) => ((ulong)(uint)left << 32) | (uint)right;
}
