using System.Text;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

/// <summary>Merging against the rule written down as it stands: of all neighbours join the best, the leftmost of equals.</summary>
public sealed class BpeTests
{
    private static readonly LlamaTokenizer Tiny = LlamaTokenizer.FromFolder(
        Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", "tiny"));

    [Theory]
    [InlineData(1, 5)]
    [InlineData(2, 30)]
    [InlineData(3, 47)]
    [InlineData(4, 49)]
    [InlineData(5, 120)]
    [InlineData(6, 400)]
    public void Words_of_any_length_follow_the_rule(int seed, int length)
    {
        var random = new Random(seed);
        for (int round = 0; round < 20; round++)
        {
            string[] alphabet = ["a", "t", "h", "e", "i", "n", "r", "s", "\u732b", "\u00e9", "\U0001f600", round % 2 == 0 ? " " : "g"];
            string text = string.Concat(Enumerable.Range(0, length).Select(_ => alphabet[random.Next(alphabet.Length)]));
            Assert.Equal(ByTheRule(text), Tiny.Encode(text, addSpecialTokens: false));
        }
    }

    [Fact]
    public void Pieces_that_a_model_holds_whole_are_found_first_and_join_with_nothing()
    {
        string folder = Directory.CreateTempSubdirectory("tokenizer").FullName;
        try
        {
            string path = Path.Combine(folder, "tokenizer.model");
            byte[] tiny = File.ReadAllBytes(Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", "tiny", "tokenizer.model"));
            // One more piece, "he>", of the kind user-defined (4): repeated fields of a message may stand anywhere in it.
            File.WriteAllBytes(path, [.. tiny, 0x0A, 7, 0x0A, 3, (byte)'h', (byte)'e', (byte)'>', 0x18, 4]);
            var tokenizer = LlamaTokenizer.FromSentencePiece(path, new TokenizerOptions { Behavior = TokenizerBehavior.SentencePiece });
            var tokens = tokenizer.Tokenize("the>re", addSpecialTokens: false);
            Assert.Equal(Tiny.Count, tokenizer.IdOf("he>"));
            Assert.Equal(["\u2581t", "he>", "re"], tokens.Ids.Select(tokenizer.TokenOf));
            Assert.Equal([new TextSpan(0, 1), new TextSpan(1, 4), new TextSpan(4, 6)], tokens.Spans);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>In the tiny model scores fall with the ids, so the smallest id joins first.</summary>
    private static List<int> ByTheRule(string text)
    {
        var symbols = ("\u2581" + text.Replace(' ', '\u2581')).EnumerateRunes().Select(r => r.ToString()).ToList();
        while (true)
        {
            int best = -1, bestId = int.MaxValue;
            for (int i = 0; i + 1 < symbols.Count; i++)
                if (Tiny.IdOf(symbols[i] + symbols[i + 1]) is { } id && id < bestId) (best, bestId) = (i, id);
            if (best < 0) break;
            symbols[best] += symbols[best + 1];
            symbols.RemoveAt(best + 1);
        }
        return [.. symbols.SelectMany(s => Tiny.IdOf(s) is { } id ? [id] : Encoding.UTF8.GetBytes(s).Select(b => 3 + b))];
    }
}
