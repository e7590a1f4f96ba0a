using Peft.Core;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>A fault in one process of a data-parallel training ends all; its own exception comes out, and no weight has moved in any.</summary>
[Collection(ProcessWideState.Name)]
public sealed class ParallelFaultTests
{
    private const string Heard = "another process of its group has failed. Look at that process's exception, and start all of them again.";

    private static TrainingOptions Options(TinyRun run) => run.Options with { BatchSize = 2, AccumulationSteps = 1, WarmupSteps = 0, Ordering = SampleOrdering.Sequential };

    /// <summary>What a process that is not the cause saw.</summary>
    private sealed record Witness(int Rank, string Message, int Steps, bool Started, string? Checkpoint);

    /// <summary>Trains until one process fails.</summary>
    /// <param name="processes">How many.</param>
    /// <param name="prepare">Breaks something; gets the rank.</param>
    /// <param name="change">Other options.</param>
    /// <param name="count">Samples.</param>
    /// <returns>The exception that came out, what the processes saw that heard of it, and how many have weights other than those after their last whole step.</returns>
    private static (Exception Cause, List<Witness> Others, int Moved) Fail(
        int processes, Action<int, TinyRun> prepare, Func<TrainingOptions, TrainingOptions>? change = null, int count = 7)
    {
        var others = new List<Witness>();
        int moved = 0;
        var cause = Assert.ThrowsAny<PeftException>(() => ParallelRun.Of(processes, (group, run) =>
        {
            prepare(group.Rank, run);
            var eye = new Eye(run);
            using var trainer = new LLaVATrainer(run.Peft, run, change?.Invoke(Options(run)) ?? Options(run), group, eye);
            eye.Look();
            try
            {
                return trainer.Train().Steps;
            }
            catch (ProcessGroupException e)
            {
                var witness = new Witness(e.Rank, e.Message, trainer.StepsDone, eye.Started, Path.GetFileName(trainer.LastCheckpoint));
                lock (others) others.Add(witness);
                throw;
            }
            finally
            {
                if (!eye.Last.SequenceEqual(ParallelRun.Weights(run))) Interlocked.Increment(ref moved);
            }
        }, () => new TinyRun(count: count)));
        return (cause, [.. others.OrderBy(o => o.Rank)], moved);
    }

    [Fact]
    public void A_loss_that_is_NaN_in_one_part_names_the_samples_of_that_part()
    {
        // Step 2 of 9 samples: 6 and 7 in the first process, 8 in the second, none in the third.
        var (cause, others, moved) = Fail(3, (_, run) => run.Broken.Add(8), o => o with { SaveStrategy = SaveStrategy.Steps, SaveSteps = 1 }, count: 9);
        Assert.Equal("In step 2 the loss is NaN; the weights are those after step 1. Samples: s8. The pixels are not finite before any module sees them (tile 0 of 1). "
            + "Look at these samples, lower the learning rate, or check the base's weights.", Assert.IsType<NonFiniteLossException>(cause).Message);
        Assert.Equal(2, others.Count);
        Assert.All(others, o => Assert.Equal(($"Process {o.Rank} cannot go on with step 2: {Heard}", 1, "checkpoint-1"), (o.Message, o.Steps, o.Checkpoint)));
        Assert.Equal(0, moved);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_gradient_that_breaks_behind_a_finite_loss_is_told_by_the_process_whose_part_it_is(int culprit)
    {
        // The loss is finite everywhere; only the part that has labels has a gradient, and it overflows.
        var (cause, others, moved) = Fail(2, (_, run) =>
        {
            int[] innocent = culprit == 0 ? [2, 3] : [0, 1];
            run.Unsupervised.UnionWith(innocent);
            run.Peft.SetScale("default", 1e12);
            using var noGrad = no_grad();
            foreach (var (name, parameter) in run.Model.named_parameters())
            {
                if (name.EndsWith("lora_B.default.weight", StringComparison.Ordinal)) parameter.zero_();
                if (name == "model.layers.0.self_attn.v_proj.lora_A.default.weight") parameter.fill_(1e36);
            }
        });
        var e = Assert.IsType<NonFiniteLossException>(cause);
        Assert.Equal(culprit == 0 ? ["s0", "s1"] : ["s2", "s3"], e.SampleIds);
        Assert.Equal("model.layers.0.self_attn.v_proj.lora_B.default", e.Module);
        Assert.StartsWith("In step 1 the gradient is ", e.Message, StringComparison.Ordinal);
        Assert.Contains("Every module's output is finite; in the backward pass the gradient of model.layers.0.self_attn.v_proj.lora_B.default.weight is the first that is not.", e.Message, StringComparison.Ordinal);
        var other = Assert.Single(others);
        Assert.Equal(($"Process {1 - culprit} cannot go on with step 1: {Heard}", 0, 0), (other.Message, other.Steps, moved));
    }

    [Fact]
    public void A_gradient_that_overflows_only_in_the_sum_is_told_by_every_process()
    {
        // Each part's own gradient is finite; so large that the sum of the squares is not.
        var (cause, others, moved) = Fail(2, (_, run) =>
        {
            using var noGrad = no_grad();
            foreach (var (name, parameter) in run.Model.named_parameters())
            {
                if (name.EndsWith("lora_B.default.weight", StringComparison.Ordinal)) parameter.zero_();
                if (name == "model.layers.0.self_attn.v_proj.lora_A.default.weight") parameter.fill_(1e23);
            }
        });
        var e = Assert.IsType<NonFiniteLossException>(cause);
        Assert.Null(e.Module);
        Assert.Matches("^In step 1 the gradient is (Infinity|NaN); the weights are those after step 0. Samples: (s0, s1|s2, s3). Look at these samples", e.Message);
        Assert.Empty(others);
        Assert.Equal(0, moved);
    }

    [Fact]
    public void A_step_without_labels_is_told_by_the_processes_that_have_samples()
    {
        var (cause, others, moved) = Fail(3, (_, run) => run.Unsupervised.UnionWith([6]), o => o with { DropLastBatch = false, MaxSteps = 2 });
        Assert.Equal("In step 2 no token has a label. Samples: s6. Their answers are empty or lie behind the length limit: raise MaxLength, or leave them out.",
            Assert.IsType<NoSupervisedTokensException>(cause).Message);
        Assert.Equal([1, 2], others.Select(o => o.Rank));
        Assert.All(others, o => Assert.Equal(($"Process {o.Rank} cannot go on with step 2: {Heard}", 1), (o.Message, o.Steps)));
        Assert.Equal(0, moved);
    }

    [Fact]
    public void A_trial_save_that_fails_ends_all_before_the_first_step()
    {
        var (cause, others, moved) = Fail(3, (rank, run) =>
        {
            // A file stands where the first process makes the trial's folder; the others write nothing and have no trial.
            if (rank == 0) File.WriteAllText(Path.Combine(run.Output, ".checkpoint-0.tmp"), "");
        });
        var e = Assert.IsType<CheckpointSaveException>(cause);
        Assert.Equal($"A trial save before the first step failed: {e.InnerException!.Message} No step was done.", e.Message);
        Assert.Equal([1, 2], others.Select(o => o.Rank));
        Assert.All(others, o => Assert.Equal(($"Process {o.Rank} cannot go on with a broadcast from 0: {Heard}", 0, false), (o.Message, o.Steps, o.Started)));
        Assert.Equal(0, moved);
    }

    [Fact]
    public void A_checkpoint_that_the_first_process_cannot_write_ends_all_after_the_same_step()
    {
        var (cause, others, moved) = Fail(2, (rank, run) =>
        {
            if (rank == 0) File.WriteAllText(Path.Combine(run.Output, ".checkpoint-2.tmp"), "");
        }, o => o with { SaveStrategy = SaveStrategy.Steps, SaveSteps = 1 });
        Assert.StartsWith("The checkpoint of step 2 could not be saved: ", Assert.IsType<CheckpointSaveException>(cause).Message, StringComparison.Ordinal);
        var other = Assert.Single(others);
        Assert.Equal(($"Process 1 cannot go on with a barrier: {Heard}", 2, "checkpoint-1", 2), (other.Message, other.Steps, other.Checkpoint, moved));
    }

    [Fact]
    public void Processes_that_would_not_train_the_same_are_refused()
    {
        string[] heard = new string[2];
        var cause = Assert.Throws<TrainingOptionsException>(() => ParallelRun.Of<int>(2, (group, run) =>
        {
            var options = Options(run) with { Seed = 42 + group.Rank, LearningRate = 0.02 };
            using var trainer = new LLaVATrainer(run.Peft, run, group.Rank == 0 ? options : options with { MaxGradNorm = 0.5 }, group);
            var e = Assert.Throws<TrainingOptionsException>(() => trainer.Train());
            heard[group.Rank] = e.Message;
            Assert.Empty(Directory.GetFileSystemEntries(run.Output));
            throw e;
        }));
        const string Next = "give all processes the same options and samples, and resume all of them from the same checkpoint or none";
        Assert.Equal($"The training settings have 2 problems:\n  - Seed is 43 in process 1 and 42 in process 0; {Next}.\n  - MaxGradNorm is 0.5 in process 1 and 1 in process 0; {Next}.", heard[0]);
        Assert.Equal(heard[0], heard[1]);
        Assert.Equal(heard[0], cause.Message);
    }

    /// <summary>Keeps the weights as they were at the start or after the last step.</summary>
    private sealed class Eye(TinyRun run) : ITrainingObserver
    {
        public float[] Last { get; private set; } = [];

        public bool Started { get; private set; }

        public void Look() => Last = ParallelRun.Weights(run);

        public void OnStart(TrainingStart start)
        {
            Started = true;
            Look();
        }

        public TrainingVerdict OnStep(StepReport report)
        {
            Look();
            return TrainingVerdict.Continue;
        }
    }
}
