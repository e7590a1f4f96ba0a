using System.Text;

namespace Peft.Llava;

/// <summary>How generated text is searched for stop strings.</summary>
public enum StopSearch
{
    /// <summary>In the generated text, wherever its tokens end. This is the default.</summary>
    Text,

    /// <summary>
    /// As LLaVA's <c>KeywordsStoppingCriteria</c>: only the last few ids are decoded, so a stop string in other tokens than its own is
    /// missed, and before the first generated id the whole prompt is searched.
    /// </summary>
    LlavaExact,
}

/// <summary>Says when generated ids hold one of several stop strings.</summary>
public sealed class StopStrings
{
    private readonly LlamaTokenizer _tokenizer;
    private readonly StopSearch _search;
    private readonly List<int[]> _keywordIds = [];
    private readonly int _textTail;

    /// <summary>Prepares the strings.</summary>
    /// <param name="tokenizer">The tokenizer of the ids.</param>
    /// <param name="keywords">The stop strings; with none it never stops.</param>
    /// <param name="search">How to search.</param>
    public StopStrings(LlamaTokenizer tokenizer, IReadOnlyList<string> keywords, StopSearch search = StopSearch.Text)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(keywords);
        _tokenizer = tokenizer;
        _search = search;
        Keywords = keywords;
        foreach (string keyword in keywords)
        {
            int[] ids = [.. tokenizer.Encode(keyword)];
            _keywordIds.Add(ids.Length > 1 && ids[0] == tokenizer.BosId ? ids[1..] : ids);
        }
        LongestKeyword = _keywordIds.Select(ids => ids.Length).Append(0).Max();
        // Every token but the special ones gives at least a byte, so this many tokens hold the longest keyword whatever they are.
        _textTail = keywords.Select(Encoding.UTF8.GetByteCount).Append(0).Max() + 4;
    }

    /// <summary>The stop strings.</summary>
    public IReadOnlyList<string> Keywords { get; }

    /// <summary>Ids of the longest stop string, without BOS.</summary>
    public int LongestKeyword { get; }

    /// <summary>True if generation should stop; asked after every new id.</summary>
    /// <param name="ids">Prompt and generated ids.</param>
    /// <param name="promptLength">How many of them are the prompt.</param>
    public bool ShouldStop(IReadOnlyList<int> ids, int promptLength)
    {
        ArgumentNullException.ThrowIfNull(ids);
        return _search == StopSearch.Text ? StopsByText(ids, promptLength) : StopsAsLlava(ids, promptLength);
    }

    private bool StopsByText(IReadOnlyList<int> ids, int promptLength)
    {
        int generated = ids.Count - promptLength;
        if (generated <= 0) return false;
        if (_keywordIds.Exists(k => k.Length <= generated && EndsWith(ids, k))) return true;
        string text = _tokenizer.Decode([.. ids.Skip(ids.Count - Math.Min(generated, _textTail))]);
        return Keywords.Any(k => k.Length > 0 && text.Contains(k, StringComparison.Ordinal));
    }

    private bool StopsAsLlava(IReadOnlyList<int> ids, int promptLength)
    {
        if (_keywordIds.Exists(k => EndsWith(ids, k))) return true;
        int tail = Math.Min(ids.Count - promptLength, LongestKeyword);
        var searched = tail == 0 ? ids : ids.Skip(ids.Count - tail);                      // Python's [-0:] is everything
        string text = _tokenizer.Decode([.. searched.Where(id => id >= 0)], new DecodeOptions { SkipSpecialTokens = true });
        return Keywords.Any(k => text.Contains(k, StringComparison.Ordinal));
    }

    private static bool EndsWith(IReadOnlyList<int> ids, int[] end)
    {
        if (end.Length == 0 || end.Length > ids.Count) return false;
        for (int i = 0; i < end.Length; i++)
            if (ids[ids.Count - end.Length + i] != end[i]) return false;
        return true;
    }
}
