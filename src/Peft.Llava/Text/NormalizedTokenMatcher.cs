namespace Peft.Llava;

/// <summary>
/// Finds added tokens that are <c>normalized</c> in the text as LLaMA's normalizer leaves it: with a mark before the whole piece and a mark for each space. Their
/// own text is normalized too, so a token is found only after a space, or at the beginning of a piece, and the mark belongs to it.
/// </summary>
internal sealed class NormalizedTokenMatcher
{
    private readonly AddedToken[] _longestFirst;

    private NormalizedTokenMatcher(IEnumerable<AddedToken> tokens) => _longestFirst = [.. tokens.OrderByDescending(t => t.Content.Length)];

    /// <summary>A matcher of these tokens; null for none.</summary>
    public static NormalizedTokenMatcher? Of(IEnumerable<AddedToken> tokens)
    {
        var matcher = new NormalizedTokenMatcher(tokens.Where(t => t.Content.Length > 0));
        return matcher._longestFirst.Length > 0 ? matcher : null;
    }

    /// <summary>The leftmost match in a part of a text, the longest at its place; null if there is none.</summary>
    /// <param name="text">The text as it was, spaces and all.</param>
    /// <param name="from">Where the part begins.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="marked">Whether the normalizer has put its mark before the part.</param>
    /// <param name="start">Where the match begins, with its space.</param>
    /// <param name="takesMark">Whether the match begins with the mark before the part, which is no character of the text.</param>
    public AddedToken? Next(string text, int from, int end, bool marked, out int start, out bool takesMark)
    {
        start = from;
        takesMark = marked;
        if (marked && At(text, from, end) is { } first) return first;
        takesMark = false;
        for (; start < end; start++)
            if (IsMark(text[start]) && At(text, start + 1, end) is { } token) return token;
        return null;
    }

    private AddedToken? At(string text, int position, int end) => Array.Find(_longestFirst, t => Matches(t.Content, text, position, end));

    private static bool Matches(string content, string text, int position, int end)
    {
        if (position + content.Length > end) return false;
        for (int i = 0; i < content.Length; i++)
        {
            char own = content[i], there = text[position + i];
            if (own != there && !(IsMark(own) && IsMark(there))) return false;
        }
        return true;
    }

    private static bool IsMark(char c) => c is ' ' or BpeModel.SpaceMark;
}
