namespace Peft.Llava;

/// <summary>Python's notion of a blank, which differs from .NET's: data files are cleaned and measured with it.</summary>
internal static class PythonText
{
    /// <summary><c>str.isspace</c> of one character: .NET's white space and the four separators U+001C to U+001F.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\u001c' and <= '\u001f';

    /// <summary><c>str.strip()</c>.</summary>
    public static string Strip(string text)
    {
        int start = 0, end = text.Length;
        while (start < end && IsSpace(text[start])) start++;
        while (end > start && IsSpace(text[end - 1])) end--;
        return text[start..end];
    }

    /// <summary><c>len(str.split())</c>.</summary>
    public static int CountWords(string text)
    {
        int words = 0;
        bool inWord = false;
        foreach (char c in text)
        {
            bool space = IsSpace(c);
            if (!space && !inWord) words++;
            inWord = !space;
        }
        return words;
    }
}
