using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Greedy generation with a cache, in all layouts, against the recorded peers.</summary>
public sealed class GenerationGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows("model", c => c.Kind == "generate");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Generation_equals_the_recorded_run(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        var json = golden.Json;
        JsonElement? overrides = json.TryGetProperty("config_overrides", out var o) ? o : null;
        using var model = GoldenModels.Load(GoldenModels.Sibling(golden, json.GetProperty("model").GetString()!), ScalarType.Float32, overrides);
        using var inputs = golden.Tensors(json.GetProperty("inputs").GetString()!);
        using var expected = golden.Tensors(json.GetProperty("expected").GetString()!);
        bool llava = json.GetProperty("layout").GetString() == "llava";
        var builder = new LlavaBatchBuilder(model.Config, new LlavaBatchOptions
        {
            TextOnlySamplesOwnAnImage = llava,
            MergeTiles = llava ? json.GetProperty("images_form").GetString() == "list" : null,
            PaddingSide = llava ? null : PaddingSide.Left,
        });
        // Without the mask the peer sees every id, padding too.
        bool masked = !json.TryGetProperty("attention_mask_passed", out var passed) || passed.GetBoolean();
        using var batch = builder.Build(GoldenModels.Samples(inputs, model.Config, masked));
        var generator = new TextGenerator(model);
        int steps = (int)expected.Entries["greedy_ids"].Shape[1];
        var greedy = new GenerationOptions { MaxNewTokens = steps, EosTokenIds = [], KeepScores = true, ReadFirstTokenAtPadding = llava };
        var tolerance = json.GetProperty("tolerance");

        Check("greedy", generator.Generate(batch, greedy));
        Check("repetition", generator.Generate(batch, greedy with { RepetitionPenalty = json.GetProperty("repetition_penalty").GetDouble() }));
        var ended = generator.Generate(batch, greedy with { EosTokenIds = [json.GetProperty("eos_token_id").GetInt32()], KeepScores = false });
        TensorAssert.Equal(expected.Load("eos_ids"), ended.ToTensor(paddingId: 0), "eos ids");

        void Check(string name, GenerationResult got)
        {
            TensorAssert.Equal(expected.Load(name + "_ids"), got.ToTensor(), name + " ids");
            var scores = stack([.. got.Scores.Select(s => s.MoveToOuterDisposeScope())], 1);
            var best = expected.Load(name + "_top5_ids");
            var (top, ids) = scores.topk((int)best.shape[2], -1);
            TensorAssert.Close(expected.Load(name + "_top5_scores"), top, tolerance.GetProperty("scores_atol").GetDouble(),
                tolerance.GetProperty("rtol").GetDouble(), name + " scores");
            TensorAssert.Close(expected.Load(name + "_top5_scores"), scores.gather(2, best), tolerance.GetProperty("scores_atol").GetDouble(),
                tolerance.GetProperty("rtol").GetDouble(), name + " scores of the recorded ids");
        }
    }
}
