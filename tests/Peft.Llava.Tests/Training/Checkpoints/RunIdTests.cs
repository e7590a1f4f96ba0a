using System.Text.Json.Nodes;
using Peft.Llava;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>Two runs in one folder: neither takes, removes or replaces what the other wrote.</summary>
[Collection(ProcessWideState.Name), Trait("Fault", "llava-8")]
public sealed class RunIdTests
{
    private static TrainingOptions Options(TinyRun run, int steps, int every) => run.Options with { MaxSteps = steps, SaveStrategy = SaveStrategy.Steps, SaveSteps = every, SaveTotalLimit = 1 };

    [Fact]
    public void A_new_run_over_an_old_checkpoint_keeps_its_own_and_is_the_latest()
    {
        using var run = new TinyRun();
        string old = Trained(run, Options(run, 4, 4)).Run;
        var (newer, again) = Trained(run, Options(run, 3, 2));
        Assert.NotEqual(old, newer);
        Assert.Equal([2, 4], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        Assert.Equal(Folder(run, 2), TrainingCheckpoint.Latest(run.Output));
        Assert.Equal(Folder(run, 2), again.LastCheckpoint);
        Assert.Equal(newer, TrainingCheckpoint.RunOf(Folder(run, 2)));
        Assert.Equal(old, TrainingCheckpoint.RunOf(Folder(run, 4)));
        Assert.Equal(Folder(run, 4), TrainingCheckpoint.Latest(run.Output, old));
    }

    [Fact]
    public void A_run_that_has_no_checkpoint_yet_does_not_take_an_older_runs()
    {
        using var run = new TinyRun();
        Trained(run, Options(run, 4, 4));
        Trained(run, Options(run, 1, 2));
        Assert.Null(TrainingCheckpoint.Latest(run.Output));
    }

    [Fact]
    public void What_another_run_wrote_is_replaced_only_if_that_is_asked_for()
    {
        using var run = new TinyRun();
        string old = Trained(run, Options(run, 4, 2) with { SaveTotalLimit = null }).Run;
        using (var refused = new LLaVATrainer(run.Peft, run, Options(run, 4, 2)))
        {
            var e = Assert.Throws<CheckpointException>(() => refused.Train());
            Assert.Equal($"The checkpoint {Folder(run, 2)} can't be used: another run wrote it (and checkpoint-4), and this run would replace it. Resume from one of that run's checkpoints by ResumeFrom, "
                + "choose another OutputDirectory, move the folder away, or set ReplaceCheckpoints to have it replaced.", e.Message);
            Assert.Equal(0, refused.StepsDone);
        }
        Assert.Equal(Folder(run, 4), TrainingCheckpoint.Latest(run.Output));
        using (var by_hand = new LLaVATrainer(run.Peft, run, Options(run, 2, 2) with { SaveStrategy = SaveStrategy.None }))
        {
            by_hand.Train();
            Assert.IsType<CheckpointException>(Assert.Throws<CheckpointSaveException>(() => by_hand.SaveCheckpoint()).InnerException);
        }
        Assert.Equal(old, TrainingCheckpoint.RunOf(Folder(run, 2)));
        string newer = Trained(run, Options(run, 3, 2) with { ReplaceCheckpoints = true }).Run;
        Assert.Equal([newer, old], TrainingCheckpoint.All(run.Output).Select(c => TrainingCheckpoint.RunOf(c.Folder)));
    }

    [Fact]
    public void A_resume_is_the_same_run_and_rewrites_the_steps_ahead()
    {
        using var run = new TinyRun();
        string id = Trained(run, Options(run, 5, 1) with { SaveTotalLimit = null }).Run;
        using var again = new TinyRun();
        using var resumed = new LLaVATrainer(again.Peft, again, Options(again, 5, 1) with { OutputDirectory = run.Output, SaveTotalLimit = 2 });
        resumed.ResumeFrom(Folder(run, 2));
        Assert.Equal(id, resumed.RunId);
        resumed.Train();
        Assert.Equal([4, 5], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        Assert.Equal(Folder(run, 5), TrainingCheckpoint.Latest(run.Output));
    }

    [Theory]
    [InlineData("LearningRate is 0.03 and was 0.02")]
    [InlineData("ProjectorLearningRate is null and was 0.003")]
    [InlineData("Schedule is Linear and was Cosine")]
    [InlineData("ScheduleCycles is 0.75 and was null")]
    [InlineData("WarmupSteps is 2 and was 1")]
    [InlineData("WeightDecay is 0.02 and was 0.01")]
    [InlineData("AdamBeta1 is 0.8 and was 0.9")]
    [InlineData("AdamBeta2 is 0.99 and was 0.999")]
    [InlineData("AdamEpsilon is 1E-06 and was 1E-08")]
    [InlineData("MaxGradNorm is 0.5 and was 1")]
    [InlineData("TotalSteps is 5 and was 4")]
    [InlineData("lora_alpha is 6.5 and was 7")]
    [InlineData("lora_dropout is 0.25 and was 0")]
    public void A_resume_with_another_rule_is_refused(string problem)
    {
        using var run = new TinyRun();
        Trained(run, Options(run, 4, 2));
        string key = problem.Split(' ')[0];
        using var again = new TinyRun(alpha: key == "lora_alpha" ? 6.5 : 7, dropout: key == "lora_dropout" ? 0.25 : 0);
        var options = Options(again, 4, 2);
        options = key switch
        {
            "LearningRate" => options with { LearningRate = 0.03 },
            "ProjectorLearningRate" => options with { ProjectorLearningRate = null },
            "Schedule" => options with { Schedule = ScheduleKind.Linear },
            "ScheduleCycles" => options with { ScheduleCycles = 0.75 },
            "WarmupSteps" => options with { WarmupSteps = 2 },
            "WeightDecay" => options with { WeightDecay = 0.02 },
            "AdamBeta1" => options with { AdamBeta1 = 0.8 },
            "AdamBeta2" => options with { AdamBeta2 = 0.99 },
            "AdamEpsilon" => options with { AdamEpsilon = 1e-6 },
            "MaxGradNorm" => options with { MaxGradNorm = 0.5 },
            "TotalSteps" => options with { MaxSteps = 5 },
            _ => options,
        };
        using var resumed = new LLaVATrainer(again.Peft, again, options);
        Assert.Equal([problem], Assert.Throws<StateMismatchException>(() => resumed.ResumeFrom(TrainingCheckpoint.Latest(run.Output)!)).Problems);
    }

    [Fact]
    public void A_checkpoint_without_an_id_is_read_compared_by_what_it_has_and_left_alone()
    {
        using var run = new TinyRun();
        Trained(run, Options(run, 4, 2));
        string checkpoint = TrainingCheckpoint.Latest(run.Output)!;
        Rewrite(Path.Combine(checkpoint, "training_state.json"), state =>
        {
            state["Version"] = 2;
            state.Remove("Run");
            foreach (string rule in state["Rules"]!.AsObject().Select(r => r.Key).ToList())
                if (rule is not ("BatchSize" or "AccumulationSteps" or "DropLastBatch" or "Ordering" or "LongestBatchFirst" or "Sampling" or "Weighting" or "Seed" or "Optimizer" or "MaxLength"))
                    state["Rules"]!.AsObject().Remove(rule);
        });
        File.Delete(Path.Combine(run.Output, "training_run.json"));
        Assert.Null(TrainingCheckpoint.RunOf(checkpoint));
        Assert.Equal(checkpoint, TrainingCheckpoint.Latest(run.Output));

        using (var other = new TinyRun(alpha: 5, dropout: 0.25))
        using (var refused = new LLaVATrainer(other.Peft, other, Options(other, 6, 2) with { Seed = 7 }))
        {
            // What neither its rules nor its files say, such as the rate, an old checkpoint cannot tell.
            Assert.Equal(["Seed is 7 and was 42", "TotalSteps is 6 and was 4", "lora_alpha is 5 and was 7", "lora_dropout is 0.25 and was 0"],
                Assert.Throws<StateMismatchException>(() => refused.ResumeFrom(checkpoint)).Problems);
        }
        string moved = Path.Combine(run.Output, "checkpoint-1");
        Directory.Move(checkpoint, moved);
        Rewrite(Path.Combine(moved, "training_state.json"), state => state["Position"]!["Steps"] = 1);
        using var again = new TinyRun();
        using var resumed = new LLaVATrainer(again.Peft, again, Options(again, 4, 2) with { OutputDirectory = run.Output });
        resumed.ResumeFrom(moved);
        resumed.Train();
        Assert.Equal([1, 4], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        Assert.Equal(resumed.RunId, TrainingCheckpoint.RunOf(TrainingCheckpoint.Latest(run.Output)!));

        File.WriteAllText(Path.Combine(moved, "trainer_state.json"), "{");
        using var damaged = new LLaVATrainer(again.Peft, again, Options(again, 4, 2));
        Assert.Contains("its trainer_state.json can't be read (", Assert.Throws<CheckpointException>(() => damaged.ResumeFrom(moved)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_of_several_runs_that_says_of_none_is_refused()
    {
        using var run = new TinyRun();
        Trained(run, Options(run, 4, 4));
        Trained(run, Options(run, 3, 2));
        string marker = Path.Combine(run.Output, "training_run.json");
        File.Delete(marker);
        Assert.Equal($"The checkpoint {run.Output} can't be used: it holds checkpoints of 2 runs (checkpoint-2, checkpoint-4) and no training_run.json that says which is meant. "
            + "Name the checkpoint to resume from.", Assert.Throws<CheckpointException>(() => TrainingCheckpoint.Latest(run.Output)).Message);
        File.WriteAllText(marker, "{");
        Assert.Contains("its training_run.json is damaged (", Assert.Throws<CheckpointException>(() => TrainingCheckpoint.Latest(run.Output)).Message, StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(Folder(run, 2), "training_state.json"), "{");
        Assert.Null(TrainingCheckpoint.RunOf(Folder(run, 2)));
    }

    private static string Folder(TinyRun run, int step) => Path.Combine(run.Output, TrainingCheckpoint.NameOf(step));

    private static (string Run, LLaVATrainer Trainer) Trained(TinyRun run, TrainingOptions options)
    {
        using var trainer = new LLaVATrainer(run.Peft, run, options);
        trainer.Train();
        return (trainer.RunId, trainer);
    }

    private static void Rewrite(string path, Action<JsonObject> change)
    {
        var json = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        change(json);
        File.WriteAllText(path, json.ToJsonString());
    }
}
