using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class KeyValueCacheTests
{
    [Theory, Trait("Level", "any")]
    [InlineData(ScalarType.Float32, 2e-5, VectorWidth.Bits128), InlineData(ScalarType.Float32, 2e-5, VectorWidth.Bits256)]
    [InlineData(ScalarType.Float32, 2e-5, VectorWidth.Bits512), InlineData(ScalarType.BFloat16, 0.06, VectorWidth.Bits128)]
    [InlineData(ScalarType.BFloat16, 0.06, VectorWidth.Bits256), InlineData(ScalarType.BFloat16, 0.06, VectorWidth.Bits512)]
    public void Decoding_token_by_token_scores_as_the_whole_sequence_at_once(ScalarType dtype, double tolerance, VectorWidth width)
    {
        using var forced = VectorLoops.ForceWidth(width);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var tiny = TinyLlava.Create(9, dtype);
        long[] first = [1, 40, 7, 33, 8, 21], second = [1, 9];
        var builder = new LlavaBatchBuilder(tiny.Model.Config);
        var options = new GenerationOptions { MaxNewTokens = 20, EosTokenIds = [], KeepScores = true };
        using var prompts = builder.Build([new("a", first, null, []), new("b", second, null, [])]);
        var generated = new TextGenerator(tiny.Model).Generate(prompts, options);
        foreach (var (row, prompt) in new[] { (0, first), (1, second) })
        {
            using var whole = builder.Build([new("w", [.. prompt, .. generated.TokenIds[row].Select(id => (long)id)], null, [])]);
            var logits = tiny.Model.Forward(whole).Logits!;
            for (int step = 0; step < 20; step++)
                TensorAssert.Close(logits[prompt.Length - 1 + step], generated.Scores[step][row], tolerance, 0, $"row {row}, step {step}");
        }
        foreach (var scores in generated.Scores) scores.Dispose();
    }
}
