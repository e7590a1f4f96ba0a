using System.Text.RegularExpressions;

namespace Peft.Core;

/// <summary>Regular expressions as Python's <c>re</c> reads them.</summary>
internal static class PythonPattern
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>An expression that must match a whole string (<c>re.fullmatch</c>).</summary>
    public static Regex Whole(string pattern) => Make($@"\A(?:{Translate(pattern)})\z");

    /// <summary>An expression that must match from the start (<c>re.match</c>).</summary>
    public static Regex FromStart(string pattern) => Make($@"\A(?:{Translate(pattern)})");

    /// <summary>What is wrong with an expression, or null.</summary>
    public static string? FaultOf(string pattern)
    {
        try
        {
            Whole(pattern);
            return null;
        }
        catch (ArgumentException e)
        {
            return $"'{pattern}': {e.Message}";
        }
    }

    private static Regex Make(string pattern) => new(pattern, RegexOptions.CultureInvariant, Patience);

    // The spellings that differ: named groups, references to them, and the end of the string.
    private static string Translate(string pattern)
    {
        var result = new System.Text.StringBuilder(pattern.Length);
        for (int i = 0; i < pattern.Length; i++)
        {
            if (pattern[i] == '\\' && i + 1 < pattern.Length)
            {
                result.Append('\\').Append(pattern[i + 1] == 'Z' ? 'z' : pattern[i + 1]);
                i++;
            }
            else if (string.CompareOrdinal(pattern, i, "(?P<", 0, 4) == 0)
            {
                result.Append("(?<");
                i += 3;
            }
            else if (string.CompareOrdinal(pattern, i, "(?P=", 0, 4) == 0 && pattern.IndexOf(')', i) is > 0 and int end)
            {
                result.Append(@"\k<").Append(pattern.AsSpan(i + 4, end - i - 4)).Append('>');
                i = end;
            }
            else
            {
                result.Append(pattern[i]);
            }
        }
        return result.ToString();
    }
}
