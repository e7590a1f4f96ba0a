namespace Peft.Llava;

/// <summary>One record of a LLaVA data file.</summary>
/// <param name="Index">Its place in the file, from 0.</param>
/// <param name="Id">Its id; <c>#index</c> where the file gives none.</param>
/// <param name="Images">Its images' files, as the record names them; empty for a text-only sample.</param>
/// <param name="Turns">The conversation.</param>
public sealed record LlavaSample(int Index, string Id, IReadOnlyList<string> Images, IReadOnlyList<ConversationTurn> Turns)
{
    /// <summary>True if it has images.</summary>
    public bool HasImage => Images.Count > 0;

    /// <summary>Number of words, by Python's <c>split()</c>: LLaVA's measure of a text's length.</summary>
    public int WordCount => Turns.Sum(turn => PythonText.CountWords(turn.Value));

    /// <summary>Number of image placeholders in the conversation.</summary>
    public int PlaceholderCount => Turns.Sum(turn => CountPlaceholders(turn.Value));

    private static int CountPlaceholders(string text)
    {
        int count = 0;
        for (int at = 0; (at = text.IndexOf(LlamaTokenizer.ImagePlaceholder, at, StringComparison.Ordinal)) >= 0; at++) count++;
        return count;
    }
}
