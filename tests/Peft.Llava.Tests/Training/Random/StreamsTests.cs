using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>One seed, separate streams: order, dropout, and whatever others draw do not move each other.</summary>
[Collection(ProcessWideState.Name)]
public sealed class StreamsTests
{
    private const int Steps = 100;

    private static List<StepReport> Train(Func<TrainingOptions, TrainingOptions>? change = null, Action<TinyRun>? before = null, Func<TinyRun, EvaluationSource>? evaluation = null)
    {
        using var run = new TinyRun(dropout: 0.3);
        before?.Invoke(run);
        var watch = new Watch();
        var options = run.Options with { MaxSteps = Steps, LearningRate = 2e-3 };
        using var trainer = new LLaVATrainer(run.Peft, run, change?.Invoke(options) ?? options, watch) { Evaluation = evaluation?.Invoke(run) };
        trainer.Train();
        return watch.Reports;
    }

    private static IEnumerable<(double, double, string)> Signature(IEnumerable<StepReport> reports)
        => reports.Select(r => (r.Loss, r.GradNorm, string.Join(' ', r.SampleIds.SelectMany(i => i))));

    [Fact]
    public void Two_runs_in_one_process_give_equal_losses_for_a_hundred_steps()
    {
        var first = Train();
        // Other draws before the second run, and another state of torch's generator.
        var second = Train(before: _ =>
        {
            manual_seed(999);
            using var drawn = rand(100);
        });
        Assert.Equal(Signature(first), Signature(second));
        Assert.Equal(Steps, first.Count);
    }

    [Fact]
    public void Neither_workers_nor_checkpointing_nor_draws_in_their_threads_change_a_run()
    {
        var plain = Train(o => o with { MaxSteps = 30 });
        Assert.Equal(Signature(plain), Signature(Train(o => o with { MaxSteps = 30, DataWorkers = 3 })));
        Assert.Equal(Signature(plain), Signature(Train(o => o with { MaxSteps = 30, GradientCheckpointing = true })));
        Assert.Equal(Signature(plain), Signature(Train(o => o with { MaxSteps = 30, DataWorkers = 2 }, before: r => r.DrawsWhilePreparing = true)));
    }

    [Fact]
    public void Evaluation_and_a_callback_that_samples_leave_the_run_as_it_is()
    {
        var plain = Train(o => o with { MaxSteps = 30 });
        int scored = 0;
        var watched = Train(o => o with { MaxSteps = 30, Evaluation = new EvaluationOptions { Strategy = EvaluationStrategy.Steps, Steps = 3, BatchSize = 3 } }, evaluation: run => new EvaluationSource
        {
            Data = run,
            Scores = new Dictionary<string, Func<LlavaModel, CancellationToken, double>>
            {
                ["sampled"] = (model, cancellation) =>
                {
                    manual_seed(scored++);
                    using var drawn = rand(17);
                    using var batch = run.Batch([0]);
                    var answer = new TextGenerator(model).Generate(batch, new GenerationOptions { MaxNewTokens = 3, Sampling = new SamplingOptions { Temperature = 0.9, Seed = 4 } }, cancellation);
                    return drawn.mean().ToDouble() + answer.StepCount;
                },
            },
        });
        Assert.Equal(10, scored);
        Assert.Equal(Signature(plain), Signature(watched));
    }

    [Fact]
    public void Observers_that_draw_at_any_moment_leave_torchs_generator_as_it_is()
    {
        using var run = new TinyRun(dropout: 0.3);
        var states = new List<byte[]>();
        var rude = new RudeObserver();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { SaveStrategy = SaveStrategy.Steps, SaveSteps = 1 }, rude);
        trainer.Train();
        foreach (var (_, folder) in TrainingCheckpoint.All(run.Output))
            states.Add(System.Text.Json.JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "training_state.json"))).RootElement.GetProperty("TorchRandom").GetBytesFromBase64());
        using var seeded = Seeded(42);
        Assert.Equal(4, states.Count);
        Assert.All(states, s => Assert.Equal(seeded.data<byte>().ToArray(), s));
        Assert.Equal(9, rude.Calls);
    }

    [Fact]
    public void The_seed_decides_order_and_dropout_apart_from_each_other()
    {
        var a = Train(o => o with { MaxSteps = 5 });
        var b = Train(o => o with { MaxSteps = 5, Seed = 43 });
        var sequential = Train(o => o with { MaxSteps = 5, Ordering = SampleOrdering.Sequential });
        var otherDropout = Train(o => o with { MaxSteps = 5, Ordering = SampleOrdering.Sequential, Seed = 43 });
        Assert.NotEqual(a.Select(r => r.SampleIds[0][0]), b.Select(r => r.SampleIds[0][0]));
        Assert.Equal(sequential.Select(r => r.SampleIds[0][0]), otherDropout.Select(r => r.SampleIds[0][0]));
        Assert.NotEqual(sequential.Select(r => r.Loss), otherDropout.Select(r => r.Loss));
    }

    [Fact]
    public void A_source_of_masks_that_the_caller_gave_stays_in_use_and_ours_is_put_away()
    {
        using var run = new TinyRun(dropout: 0.3);
        var found = run.Peft.Dropout;
        using (var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 1 })) trainer.Train();
        Assert.Same(found, run.Peft.Dropout);
        var own = new Counting();
        run.Peft.Dropout = own;
        using (var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 1 })) trainer.Train();
        Assert.Same(own, run.Peft.Dropout);
        // 3 layers of 2 decoder blocks, 2 micro-batches.
        Assert.Equal(12, own.Draws);
    }

    private static Tensor Seeded(long seed)
    {
        manual_seed(seed);
        return get_rng_state();
    }

    private sealed class RudeObserver : ITrainingObserver
    {
        public int Calls { get; private set; }

        public void OnStart(TrainingStart start) => Draw();

        public void OnGradients(int step, IReadOnlyList<ParameterGroup> groups) => Draw();

        public TrainingVerdict OnStep(StepReport report)
        {
            Draw();
            return TrainingVerdict.Continue;
        }

        private void Draw()
        {
            manual_seed(++Calls);
            using var drawn = rand(3);
        }
    }

    private sealed class Counting : IDropoutSource
    {
        public int Draws { get; private set; }

        public IDropoutMask Draw(string module, Tensor input, double probability)
        {
            Draws++;
            return SeededDropout.MaskOf((ulong)Draws, probability);
        }
    }
}
