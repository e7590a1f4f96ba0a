using System.Buffers;

namespace Peft.Llava;

/// <summary>Finds fixed strings in a text, left to right, the longest at each place.</summary>
internal sealed class AddedTokenMatcher
{
    private readonly Dictionary<char, AddedToken[]> _byFirst;
    private readonly SearchValues<char> _firsts;

    public AddedTokenMatcher(IEnumerable<AddedToken> tokens)
    {
        _byFirst = tokens.Where(t => t.Content.Length > 0).GroupBy(t => t.Content[0])
            .ToDictionary(g => g.Key, g => g.OrderByDescending(t => t.Content.Length).ToArray());
        _firsts = SearchValues.Create([.. _byFirst.Keys]);
    }

    /// <summary>The first match at or after a position; null if there is none.</summary>
    public AddedToken? Next(string text, int from, out int start)
    {
        for (start = from; start < text.Length; start++)
        {
            int step = text.AsSpan(start).IndexOfAny(_firsts);
            if (step < 0) break;
            start += step;
            if (At(text, start) is { } token) return token;
        }
        start = text.Length;
        return null;
    }

    /// <summary>The longest match at a position, or null.</summary>
    public AddedToken? At(string text, int position)
    {
        if (!_byFirst.TryGetValue(text[position], out var candidates)) return null;
        foreach (var token in candidates)
            if (text.AsSpan(position).StartsWith(token.Content, StringComparison.Ordinal)) return token;
        return null;
    }
}
