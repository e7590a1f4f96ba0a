using System.Globalization;
using System.Text;

namespace Peft.Llava;

/// <summary>GPT-2's byte alphabet and its split of a text into words, as tokenizers of the MPT and GPT-NeoX kind use them.</summary>
internal static class ByteLevelText
{
    private static readonly char[] ByteToChar = MakeAlphabet();
    private static readonly Dictionary<char, byte> CharToByte = Enumerable.Range(0, 256).ToDictionary(b => ByteToChar[b], b => (byte)b);

    /// <summary>The character that stands for a byte.</summary>
    public static char CharOf(byte value) => ByteToChar[value];

    /// <summary>Appends the bytes of a piece; a piece with a character outside the alphabet (an added token) gives its own UTF-8.</summary>
    public static void AppendBytes(string piece, List<byte> bytes)
    {
        int before = bytes.Count;
        foreach (char c in piece)
        {
            if (CharToByte.TryGetValue(c, out byte value))
            {
                bytes.Add(value);
                continue;
            }
            bytes.RemoveRange(before, bytes.Count - before);
            bytes.AddRange(Encoding.UTF8.GetBytes(piece));
            return;
        }
    }

    /// <summary>
    /// The end of the word that begins at a position, by the pattern
    /// <c>'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+</c>. Written out by characters because .NET's regular
    /// expressions see letters beyond U+FFFF as two surrogates.
    /// </summary>
    public static int WordEnd(ReadOnlySpan<char> text, int start)
    {
        var rest = text[start..];
        if (rest[0] == '\'')
        {
            foreach (string suffix in (ReadOnlySpan<string>)["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"])
                if (rest.StartsWith(suffix, StringComparison.Ordinal)) return start + suffix.Length;
        }
        int at = rest[0] == ' ' && rest.Length > 1 ? start + 1 : start;
        var kind = KindAt(text, at, out _);
        if (kind != Kind.Space) return RunEnd(text, at, kind);
        int end = RunEnd(text, start, Kind.Space);
        // \s+(?!\S): the last blank before a word belongs to the word's match, or stands alone.
        return end < text.Length && end - start > 1 ? end - 1 : end;
    }

    private enum Kind
    {
        Letter,
        Number,
        Space,
        Other,
    }

    private static int RunEnd(ReadOnlySpan<char> text, int start, Kind kind)
    {
        while (start < text.Length && KindAt(text, start, out int length) == kind) start += length;
        return start;
    }

    private static Kind KindAt(ReadOnlySpan<char> text, int position, out int length)
    {
        Rune.DecodeFromUtf16(text[position..], out var rune, out length);
        if (Rune.IsWhiteSpace(rune)) return Kind.Space;
        return Rune.GetUnicodeCategory(rune) switch
        {
            <= UnicodeCategory.OtherLetter => Kind.Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Kind.Number,
            _ => Kind.Other,
        };
    }

    private static char[] MakeAlphabet()
    {
        var alphabet = new char[256];
        int next = 256;
        for (int b = 0; b < 256; b++)
        {
            bool printable = b is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);
            alphabet[b] = (char)(printable ? b : next++);
        }
        return alphabet;
    }
}
