using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Text;

public sealed class EmbeddingResizeTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows(TextGoldens.Area, c => c.Kind == "embedding");

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void New_rows_are_the_mean_of_those_before(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        long after = golden.Json.GetProperty("vocab_after").GetInt64(), before = golden.Json.GetProperty("vocab_before").GetInt64();
        long random = golden.Json.GetProperty("random_rows").GetInt64();
        var tolerance = golden.Json.GetProperty("tolerance");
        using var inputs = golden.Tensors("inputs.safetensors");
        using var expected = golden.Tensors("expected.safetensors");
        foreach (string side in new[] { "input", "output" })
        {
            var table = inputs.Load(side + "_before");
            var wanted = expected.Load(side + "_after");
            var given = random > 0 ? wanted[TensorIndex.Slice(before, before + random)] : null;
            var got = EmbeddingResize.WithMeanRows(table, after, given);
            TensorAssert.Close(wanted, got, tolerance.GetProperty("atol").GetDouble(), tolerance.GetProperty("rtol").GetDouble(), side);
            TensorAssert.Equal(table, got[TensorIndex.Slice(0, before)], side + ", old rows");
        }
        var tokenizer = TextGoldens.Tokenizer(golden, golden.Json.GetProperty("tokenizer").GetString()!, TokenizerBehavior.SentencePiece);
        Assert.Equal(before, tokenizer.Count);
    }

    [Fact]
    public void Refuses_rows_of_another_width_or_too_many()
    {
        using var scope = NewDisposeScope();
        var table = rand(5, 3);
        var e = Assert.Throws<ShapeMismatchException>(() => EmbeddingResize.WithMeanRows(table, 7, rand(1, 4)));
        Assert.Contains("given rows: expected shape (1, 3), got (1, 4)", e.Message);
        e = Assert.Throws<ShapeMismatchException>(() => EmbeddingResize.WithMeanRows(table, 4));
        Assert.Contains("grown embedding: expected shape (4, 3), got (5, 3)", e.Message);
    }

    [Fact]
    public void Leaves_no_tensors_behind() => LeakGuard.AssertFlat(5, () =>
    {
        using var table = rand(5, 3);
        using var given = rand(1, 3);
        using var grown = EmbeddingResize.WithMeanRows(table, 9, given);
    });
}
