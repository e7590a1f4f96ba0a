using Peft.Core;
using Peft.Llava;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>Greedy generation of 64 tokens after 40 words and a picture, the adapter merged and unmerged.</summary>
internal static class GenerationScenario
{
    private const int NewTokens = 64;

    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(string folder, BenchmarkSize size, int repeats)
    {
        var rows = new List<ResultRow>();
        foreach (bool merged in new[] { true, false })
        {
            using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = ScalarType.BFloat16 });
            using var peft = TrainingScenario.Adapt(model, float32: true);
            if (merged) peft.MergeAndUnload(safe: false);
            model.eval();
            foreach (int batch in new[] { 1, 4 }) rows.AddRange(Measure(model, size, batch, repeats, merged ? "merged" : "unmerged"));
        }
        return rows;
    }

    private static IEnumerable<ResultRow> Measure(LlavaModel model, BenchmarkSize size, int batch, int repeats, string state)
    {
        using var prompts = new BatchGenerator(size).Prompt(new LlavaBatchBuilder(model.Config), batch);
        var generator = new TextGenerator(model);
        bool reset = ProcessMemory.ResetPeak();
        var prefill = new List<double>();
        var decode = new List<double>();
        for (int i = 0; i <= repeats; i++)
        {
            double start = Clock.Now(), first = 0;
            generator.Generate(prompts, new GenerationOptions
            {
                MaxNewTokens = NewTokens,
                EosTokenIds = [],
                OnStep = step => first = step.Index == 0 ? Clock.Now() : first,
            });
            if (i == 0) continue;       // warm-up
            prefill.Add(first - start);
            decode.Add(Clock.Now() - first);
        }
        double tokens = prompts.Layout.TokenCount, peak = ProcessMemory.PeakMegabytes;
        yield return new ResultRow($"prefill {state} batch {batch}", TrainingScenario.Median(prefill), prefill.Min(),
            tokens / TrainingScenario.Median(prefill), "tokens/s", null, peak, $"{tokens} tokens; peak reset {reset}");
        yield return new ResultRow($"decode {state} batch {batch}", TrainingScenario.Median(decode), decode.Min(),
            (NewTokens - 1) * batch / TrainingScenario.Median(decode), "tokens/s", null, peak, "");
    }
}
