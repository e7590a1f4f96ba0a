using System.Text;

namespace Peft.Llava;

/// <summary>Pieces back to text, as the tokenizer of the behaviour does.</summary>
internal static class TokenDecoder
{
    private const char Replacement = '\uFFFD';

    /// <summary>One token to decode.</summary>
    /// <param name="Text">Its piece or content.</param>
    /// <param name="Value">For a byte piece, the byte; else -1.</param>
    /// <param name="IsSpecial">A special token with a role: written as it is.</param>
    /// <param name="StandsApart">An added token that ends the run of ordinary text before it.</param>
    internal readonly record struct Token(string Text, int Value, bool IsSpecial, bool StandsApart);

    /// <summary>LlamaTokenizer: runs of ordinary text decoded by SentencePiece, joined with added tokens by one space.</summary>
    public static string SentencePieceText(IReadOnlyList<Token> tokens, bool legacy, bool dropsDummySpace, bool spacesBetween)
    {
        var parts = new List<string>();
        var run = new List<Token>();
        foreach (var token in tokens)
        {
            if (!token.StandsApart)
            {
                run.Add(token);
                continue;
            }
            if (run.Count > 0 && RunText(run, legacy, dropsDummySpace) is { Length: > 0 } text) parts.Add(text);
            run.Clear();
            parts.Add(token.Text);
        }
        if (run.Count > 0) parts.Add(RunText(run, legacy, dropsDummySpace));
        return string.Join(spacesBetween ? " " : "", parts);
    }

    /// <summary>The tokenizers library: spaces, then runs of byte pieces (all or nothing), then the first space dropped.</summary>
    public static string FusedText(IReadOnlyList<Token> tokens)
    {
        var text = new StringBuilder();
        var bytes = new List<byte>();
        foreach (var token in tokens)
        {
            if (token.Value >= 0)
            {
                bytes.Add((byte)token.Value);
                continue;
            }
            FlushWhole(bytes, text);
            text.Append(token.Text.Replace(BpeModel.SpaceMark, ' '));
        }
        FlushWhole(bytes, text);
        if (text.Length > 0 && text[0] == ' ') text.Remove(0, 1);
        return text.ToString();
    }

    /// <summary>Byte-level tokenizers: the bytes of all pieces, read as UTF-8.</summary>
    public static string ByteLevel(IReadOnlyList<Token> tokens)
    {
        var bytes = new List<byte>();
        foreach (var token in tokens) ByteLevelText.AppendBytes(token.Text, bytes);
        return Encoding.UTF8.GetString([.. bytes]);
    }

    /// <summary>transformers' clean_up_tokenization, in its order.</summary>
    public static string CleanUp(string text)
        => text.Replace(" .", ".", StringComparison.Ordinal).Replace(" ?", "?", StringComparison.Ordinal)
            .Replace(" !", "!", StringComparison.Ordinal).Replace(" ,", ",", StringComparison.Ordinal)
            .Replace(" ' ", "'", StringComparison.Ordinal).Replace(" n't", "n't", StringComparison.Ordinal)
            .Replace(" 'm", "'m", StringComparison.Ordinal).Replace(" 's", "'s", StringComparison.Ordinal)
            .Replace(" 've", "'ve", StringComparison.Ordinal).Replace(" 're", "'re", StringComparison.Ordinal);

    private static string RunText(List<Token> run, bool legacy, bool dropsDummySpace)
    {
        if (run[0].Value < 0 && run[0].Text.StartsWith(BpeModel.SpaceMark)) run[0] = run[0] with { Text = run[0].Text[1..] };
        var text = new StringBuilder();
        var ordinary = new List<Token>();
        bool afterSpecial = false;
        for (int i = 0; i < run.Count; i++)
        {
            if (!run[i].IsSpecial)
            {
                ordinary.Add(run[i]);
                afterSpecial = false;
                continue;
            }
            if (legacy && !afterSpecial && i > 0) text.Append(' ');
            text.Append(PieceText(ordinary, dropsDummySpace)).Append(run[i].Text);
            ordinary.Clear();
            afterSpecial = true;
        }
        return text.Append(PieceText(ordinary, dropsDummySpace)).ToString();
    }

    /// <summary>SentencePiece's decoder: the space before the first piece is dropped if the model adds one; bad bytes one by one.</summary>
    private static StringBuilder PieceText(List<Token> tokens, bool dropsDummySpace)
    {
        var text = new StringBuilder();
        var bytes = new List<byte>();
        bool atStart = true, sawSpace = false;
        foreach (var token in tokens)
        {
            if (token.Value >= 0)
            {
                bytes.Add((byte)token.Value);
                continue;
            }
            FlushEach(bytes, text);
            if (sawSpace || text.Length > 0) atStart = false;
            string piece = token.Text;
            sawSpace = atStart && dropsDummySpace && piece.StartsWith(BpeModel.SpaceMark);
            text.Append((sawSpace ? piece[1..] : piece).Replace(BpeModel.SpaceMark, ' '));
        }
        FlushEach(bytes, text);
        return text;
    }

    private static void FlushEach(List<byte> bytes, StringBuilder text)
    {
        var rest = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(bytes);
        while (rest.Length > 0)
        {
            bool good = Rune.DecodeFromUtf8(rest, out var rune, out int count) == System.Buffers.OperationStatus.Done;
            if (good) text.Append(rune.ToString());
            else text.Append(Replacement);
            rest = rest[(good ? count : 1)..];
        }
        bytes.Clear();
    }

    private static void FlushWhole(List<byte> bytes, StringBuilder text)
    {
        if (bytes.Count == 0) return;
        byte[] run = [.. bytes];
        if (System.Text.Unicode.Utf8.IsValid(run)) text.Append(Encoding.UTF8.GetString(run));
        else text.Append(Replacement, run.Length);
        bytes.Clear();
    }
}
