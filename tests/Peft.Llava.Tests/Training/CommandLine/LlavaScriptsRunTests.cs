using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>LLaVA's twelve scripts as they stand: parsed, told about, trained.</summary>
[Collection(ProcessWideState.Name), Trait("Fault", "llava-9")]
public sealed class LlavaScriptsRunTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly ScriptFolders _scripts;

    public LlavaScriptsRunTests() => _scripts = new ScriptFolders(_folder);

    public static IEnumerable<TheoryDataRow<string>> Scripts => LlavaScripts.All.Keys.Select(s => new TheoryDataRow<string>(s));

    public void Dispose() => _folder.Dispose();

    [Theory, MemberData(nameof(Scripts))]
    public void A_script_with_local_folders_trains_a_step(string script)
    {
        var arguments = LlavaCommandLine.Parse(_scripts.Arguments(script));
        Assert.Contains("report_to", arguments.Run.Warnings.Select(w => w.Flag));
        // One step of two samples, in place of the script's epochs of large batches: bfloat16 is slow without a GPU.
        arguments = Small(arguments) with { Training = arguments.Training with { MaxSteps = 1, BatchSize = 2, AccumulationSteps = 1 } };
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        using var trainer = prepared.TrainerFor(data, arguments);
        var summary = trainer.Train();
        Assert.Equal(1, summary.Steps);
        Assert.True(double.IsFinite(summary.MeanLoss));
        trainer.SaveModel();
        Assert.True(File.Exists(Path.Combine(_scripts.Output, "config.json")));
    }

    [Fact]
    public void A_dry_run_tells_what_becomes_of_the_flags_and_writes_nothing()
    {
        string[] list = [.. _scripts.Arguments("v1_5/finetune_task_lora.sh"), "--dry_run", "True"];
        var arguments = LlavaCommandLine.Parse(list);
        Assert.True(arguments.Run.DryRun);
        var report = LlavaRecipe.DryRun(Small(arguments));
        Assert.False(Directory.Exists(_scripts.Output));
        Assert.Equal(list.Where(a => a.StartsWith("--", StringComparison.Ordinal)).Select(a => a[2..]).Order(), report.Notes.Select(n => n.Flag).Order());
        string text = report.ToString();
        Assert.Contains("taken: --lora_r 128\n", text, StringComparison.Ordinal);
        Assert.Contains("ignored: --report_to wandb: wandb is a service on the network, which nothing is sent to; the run goes on as with none\n", text, StringComparison.Ordinal);
        Assert.Contains("ignored: --lazy_preprocess samples are prepared when they are needed, as in LLaVA whatever it says\n", text, StringComparison.Ordinal);
        Assert.Contains($"taken: --deepspeed {_folder.File("zero3.json")}: bf16, micro-batch 16, batch 16, accumulation 1, stage 3 (all values are in the one process), "
            + "clipping at --max_grad_norm 1 (DeepSpeed would not clip, since the file does not say so); the rest is how processes share their memory, and there is one\n", text, StringComparison.Ordinal);
        Assert.Equal(Path.GetFullPath(arguments.Model.ModelPath), report.Base);
        Assert.Equal(Path.GetFullPath(arguments.Model.VisionTower!), report.VisionTower);
        Assert.Null(report.Checkpoint);
        using (var json = JsonDocument.Parse(File.ReadAllBytes(arguments.Data.DataPath))) Assert.Equal(json.RootElement.GetArrayLength(), report.Samples);
        Assert.Equal((report.Samples + 15) / 16, report.Steps);
        Assert.True(report.Memory.PeakBytes > 100_000_000);
        Assert.Contains("begins: anew\n", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_dry_run_of_a_base_with_its_own_settings_says_which_stay()
    {
        string[] list = _scripts.Arguments("v1_5/finetune_task_lora.sh");
        int tower = Array.IndexOf(list, "--vision_tower");
        // Without --vision_tower the base is LLaVA as it is.
        list = [.. list[..tower], .. list[(tower + 2)..]];
        list[Array.IndexOf(list, "--model_name_or_path") + 1] = BaseWithTower();
        list[Array.IndexOf(list, "--mm_vision_select_layer") + 1] = "-1";
        list[Array.IndexOf(list, "--image_aspect_ratio") + 1] = "pad";
        try
        {
            var report = LlavaRecipe.DryRun(Small(LlavaCommandLine.Parse(list)));
            Assert.Contains(report.Notes, n => n.ToString() == "kept: --mm_vision_select_layer -1: the base has -2, which stays");
        }
        catch (TrainingOptionsException e)
        {
            // Such a flag may be refused by name as well; it is never passed over.
            Assert.Contains("--mm_vision_select_layer", e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_run_from_flags_goes_on_from_its_checkpoint_as_LLaVAs_script_does()
    {
        LlavaArguments Parsed(params string[] more)
        {
            var parsed = LlavaCommandLine.Parse([.. _scripts.Arguments("v1_5/finetune_task_lora.sh"), .. more]);
            return Small(parsed) with { Training = parsed.Training with { MaxSteps = 2, BatchSize = 1, SaveSteps = 1, SaveTotalLimit = null, Precision = TrainingPrecision.Float32, GradientCheckpointing = false, DataWorkers = 0 } };
        }
        Assert.Equal(_scripts.Output, Assert.Throws<CheckpointException>(() => LlavaRecipe.CheckpointFor(Parsed("--resume_from_checkpoint", "True"))).Folder);
        Assert.Null(LlavaRecipe.CheckpointFor(Parsed()));
        string run = Trained(Parsed(), 0);
        string newest = Path.Combine(_scripts.Output, "checkpoint-2"), first = Path.Combine(_scripts.Output, "checkpoint-1");
        Assert.Equal(newest, LlavaRecipe.CheckpointFor(Parsed()));
        Assert.Equal(newest, LlavaRecipe.CheckpointFor(Parsed("--resume_from_checkpoint", "True")));
        Assert.Equal(first, LlavaRecipe.CheckpointFor(Parsed("--resume_from_checkpoint", first)));
        Assert.Null(LlavaRecipe.CheckpointFor(Parsed("--resume_from_checkpoint", "False")));
        Assert.Equal("The checkpoint nowhere can't be used: there is no such folder. Name a checkpoint-N folder, or leave the flag out to begin anew where there is none.",
            Assert.Throws<CheckpointException>(() => LlavaRecipe.CheckpointFor(Parsed("--resume_from_checkpoint", "nowhere"))).Message);
        Directory.Delete(newest, recursive: true);
        Assert.Equal(run, Trained(Parsed(), 1));
        Assert.True(Directory.Exists(newest));
        var other = Parsed();
        Assert.Contains("LearningRate is 0.001 and was 0.0002",
            Assert.Throws<StateMismatchException>(() => Trained(other with { Training = other.Training with { LearningRate = 1e-3 } }, 2)).Message, StringComparison.Ordinal);
    }

    // The scripts' ranks of 64 and 128 are above the sides of the tests' layers.
    private static LlavaArguments Small(LlavaArguments arguments) => arguments with { Lora = arguments.Lora with { Rank = 12 } };

    private static string Trained(LlavaArguments arguments, int from)
    {
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments);
        Assert.Equal(from, trainer.StepsDone);
        trainer.Train();
        return trainer.RunId;
    }

    [Fact]
    public void Tensorboard_switches_its_observer_on()
    {
        string[] list = _scripts.Arguments("v1_5/finetune_task_lora.sh");
        list[^1] = "tensorboard";
        var arguments = LlavaCommandLine.Parse([.. list, "wandb", "--logging_dir", _folder.File("events")]);
        Assert.True(arguments.Run.TensorBoard);
        arguments = Small(arguments) with { Training = arguments.Training with { MaxSteps = 1, BatchSize = 1, Precision = TrainingPrecision.Float32, SaveStrategy = SaveStrategy.None } };
        Trained(arguments, 0);
        Assert.Single(Directory.GetFiles(_folder.File("events"), "events.out.tfevents.*"));
    }

    private string BaseWithTower()
    {
        string common = Path.Combine(Repository.Root, "tests", "goldens", "training", "common"), folder = _folder.File("llava");
        foreach (string part in new[] { "base-llava", "clip-tower" })
        {
            string to = part == "base-llava" ? folder : Path.Combine(folder, "common", part);
            Directory.CreateDirectory(to);
            foreach (string file in Directory.GetFiles(Path.Combine(common, part))) File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        }
        File.Copy(Path.Combine(common, "clip-tower", "preprocessor_config.json"), Path.Combine(folder, "preprocessor_config.json"));
        return folder;
    }
}
