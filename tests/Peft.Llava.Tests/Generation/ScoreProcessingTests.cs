using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class ScoreProcessingTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("sampling_distribution");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Distribution_equals_the_recorded_one(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = UnitCases.Expected(golden);
        double atol = UnitCases.Tolerance(golden, "atol"), rtol = UnitCases.Tolerance(golden, "rtol");
        int i = 0;
        foreach (var s in golden.Json.GetProperty("settings").GetProperty("settings").EnumerateArray())
        {
            var scores = ScoreProcessing.RepetitionPenalty(inputs.Load("logits"), inputs.Load("previous_ids"), s.GetProperty("penalty").GetDouble());
            TensorAssert.Close(expected.Load($"{i}_penalised"), scores, atol, rtol, $"{i} penalised");
            var warped = ScoreProcessing.Warp(scores, new SamplingOptions
            {
                Temperature = s.GetProperty("temperature").GetDouble(), TopK = s.GetProperty("top_k").GetInt32(), TopP = s.GetProperty("top_p").GetDouble(),
            });
            var (kept, probabilities) = (expected.Load($"{i}_kept"), expected.Load($"{i}_probabilities"));
            TensorAssert.Equal(kept.sum(1), warped.isfinite().sum(1), $"{i} ids kept");
            TensorAssert.Close(probabilities.sort(1).Values, warped.softmax(-1).sort(1).Values, atol, rtol, $"{i} sorted probabilities");
            for (int row = 0; row < scores.shape[0]; row++)
            {
                // Which of several equal ids survives top-p depends on an unstable sort.
                if (HasTies(scores[row])) continue;
                TensorAssert.Equal(kept[row], warped[row].isfinite(), $"{i} kept in row {row}");
                TensorAssert.Close(probabilities[row], warped[row].softmax(-1), atol, rtol, $"{i} probabilities of row {row}");
            }
            i++;
        }
    }

    private static bool HasTies(Tensor row) => row.data<float>().GroupBy(x => x).Any(g => g.Count() > 1);
}
