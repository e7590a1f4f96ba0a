namespace Peft.Llava;

/// <summary>The order in which the pieces of a SentencePiece model are joined.</summary>
internal enum MergeOrder
{
    /// <summary>By the joined piece's score, the leftmost pair of equals: SentencePiece itself.</summary>
    Score,

    /// <summary>By score, then the longer left and right part: the merges of later versions of transformers 4.</summary>
    ScoreThenLength,

    /// <summary>By score, then the ids of the joined piece and of its parts: the merges that transformers 4.37 writes to tokenizer.json.</summary>
    ScoreThenIds,

    /// <summary>By the joined piece's id: transformers 5 from a tokenizer.model.</summary>
    Id,
}

/// <summary>Builds merge tables.</summary>
internal static class MergeTables
{
    /// <summary>From a SentencePiece model's ordinary pieces.</summary>
    /// <param name="pieces">All pieces, by id.</param>
    /// <param name="order">The order of merges.</param>
    /// <param name="characters">Receives the symbol of every character that is a piece or occurs in one.</param>
    public static Dictionary<ulong, BpeMerge> FromPieces(
        IReadOnlyList<SentencePiece> pieces, MergeOrder order, out Dictionary<int, int> characters)
    {
        var symbols = Symbols(pieces);
        characters = CharacterSymbols(pieces, symbols);
        var entries = Entries(pieces, symbols);
        return order == MergeOrder.Score ? ByScore(entries) : FromRanked([.. Ranked(entries, order).Select(e => (e.Left, e.Right, e.Joined))]);
    }

    /// <summary>The merges of a SentencePiece model's ordinary pieces in their order, as texts.</summary>
    /// <param name="pieces">All pieces, by id.</param>
    /// <param name="order">The order; not <see cref="MergeOrder.Score"/>, in which equals share a rank.</param>
    public static IEnumerable<(string Left, string Right)> RankedPairs(IReadOnlyList<SentencePiece> pieces, MergeOrder order)
        => Ranked(Entries(pieces, Symbols(pieces)), order).Select(e => (pieces[e.Left].Text, pieces[e.Right].Text));

    private static Dictionary<string, int> Symbols(IReadOnlyList<SentencePiece> pieces)
    {
        var symbols = new Dictionary<string, int>(pieces.Count, StringComparer.Ordinal);
        for (int id = 0; id < pieces.Count; id++)
            if (pieces[id].Kind == SentencePieceKind.Normal) symbols.TryAdd(pieces[id].Text, id);
        return symbols;
    }

    private static List<Entry> Entries(IReadOnlyList<SentencePiece> pieces, Dictionary<string, int> symbols)
    {
        var entries = new List<Entry>(pieces.Count * 2);
        var lookup = symbols.GetAlternateLookup<ReadOnlySpan<char>>();
        for (int id = 0; id < pieces.Count; id++)
        {
            if (pieces[id].Kind != SentencePieceKind.Normal) continue;
            string text = pieces[id].Text;
            for (int cut = 1; cut < text.Length; cut++)
            {
                if (char.IsLowSurrogate(text[cut])) continue;
                if (lookup.TryGetValue(text.AsSpan(0, cut), out int left) && lookup.TryGetValue(text.AsSpan(cut), out int right))
                    entries.Add(new Entry(left, right, id, pieces[id].Score, cut, text.Length - cut));
            }
        }
        return entries;
    }

    /// <summary>From a list of merges in their order.</summary>
    public static Dictionary<ulong, BpeMerge> FromRanked(IReadOnlyList<(int Left, int Right, int Joined)> merges)
    {
        var table = new Dictionary<ulong, BpeMerge>(merges.Count);
        for (int rank = 0; rank < merges.Count; rank++)
            table.TryAdd(BpeModel.Key(merges[rank].Left, merges[rank].Right), new BpeMerge(rank, merges[rank].Joined));
        return table;
    }

    private static Dictionary<int, int> CharacterSymbols(IReadOnlyList<SentencePiece> pieces, Dictionary<string, int> symbols)
    {
        var characters = new Dictionary<int, int>();
        int next = pieces.Count;
        foreach (var piece in pieces.Where(p => p.Kind == SentencePieceKind.Normal))
        {
            foreach (var rune in piece.Text.EnumerateRunes())
            {
                if (characters.ContainsKey(rune.Value)) continue;
                string text = rune.ToString();
                if (!symbols.TryGetValue(text, out int symbol)) symbols[text] = symbol = next++;
                characters[rune.Value] = symbol;
            }
        }
        return characters;
    }

    private static Dictionary<ulong, BpeMerge> ByScore(List<Entry> entries)
    {
        // Equal scores share a rank, so that the leftmost pair goes first.
        var ranks = entries.Select(e => e.Score).Distinct().OrderDescending().Select((score, rank) => (score, rank))
            .ToDictionary(x => x.score, x => x.rank);
        var table = new Dictionary<ulong, BpeMerge>(entries.Count);
        foreach (var e in entries) table.TryAdd(BpeModel.Key(e.Left, e.Right), new BpeMerge(ranks[e.Score], e.Joined));
        return table;
    }

    // The sorts are stable, as Python's are; reversed ones keep the order of equals too.
    private static IEnumerable<Entry> Ranked(List<Entry> entries, MergeOrder order) => order switch
    {
        MergeOrder.Id => entries.OrderBy(e => e.Joined).ThenBy(e => e.LeftLength).ThenBy(e => e.RightLength),
        MergeOrder.ScoreThenIds => entries.OrderByDescending(e => e.Score).ThenBy(e => e.Joined).ThenBy(e => e.Left).ThenBy(e => e.Right),
        _ => entries.OrderByDescending(e => e.Score).ThenByDescending(e => e.LeftLength).ThenByDescending(e => e.RightLength).ThenBy(e => e.Joined),
    };

    private readonly record struct Entry(int Left, int Right, int Joined, float Score, int LeftLength, int RightLength);
}
