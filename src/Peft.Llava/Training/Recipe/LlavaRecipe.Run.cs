using System.Text.Json.Nodes;
using Peft.Core;
using TorchSharp;

namespace Peft.Llava;

public static partial class LlavaRecipe
{
    // Flags that the base's configuration answers as well, under the same names.
    private static readonly string[] ConfiguredFlags =
        ["mm_projector_type", "mm_vision_select_layer", "mm_vision_select_feature", "mm_patch_merge_type", "mm_use_im_start_end", "mm_use_im_patch_token", "image_aspect_ratio"];

    /// <summary>
    /// Does all that comes before the weights: reads configurations and data, resolves paths, finds the checkpoint to go on from, and estimates the memory.
    /// Nothing is written.
    /// </summary>
    /// <param name="arguments">The arguments; paths are relative to the working folder.</param>
    /// <returns>What the run would do.</returns>
    /// <exception cref="TrainingOptionsException">The arguments cannot be honoured.</exception>
    /// <exception cref="InvalidConfigurationException">A configuration holds values that cannot be used.</exception>
    /// <exception cref="DataFileException">The data cannot be read, or records are malformed.</exception>
    /// <exception cref="TensorFileNotFoundException">The projector's file is not there.</exception>
    /// <exception cref="CheckpointException">The checkpoint that is asked for is not there.</exception>
    public static DryRunReport DryRun(LlavaArguments arguments)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        PeftEnvironment.EnsureLibtorch();
        var (config, tower) = BaseAssembly.Describe(arguments);
        if (arguments.Model.ProjectorWeights is { } projector) TensorFiles.Open(projector).Dispose();
        var data = PrepareData(arguments, config);
        var training = arguments.Training;
        var memory = config.EstimateMemory(training, new MemoryAssumptions
        {
            Lora = arguments.Lora.Enabled ? ConfigOf(arguments, TargetModules.Regex($".*layers.*({string.Join('|', LinearNames)})")) with { ExcludeModules = TargetModules.Regex(".*vision.*") } : null,
            Float32Adapter = training.Precision is TrainingPrecision.Float16 or TrainingPrecision.Float32,
            Quantization = KbitRecipe.ConfigOf(arguments),
            BaseDtype = KbitRecipe.DtypeOf(training.Precision),
        });
        return new DryRunReport(
            [.. arguments.Run.Notes.Select(n => Resolved(n, config.ToJson()))], Path.GetFullPath(arguments.Model.ModelPath), tower is null ? null : Path.GetFullPath(tower),
            arguments.Model.ProjectorWeights is { } file ? Path.GetFullPath(file) : null, CheckpointFor(arguments), data.Count, new StepPlan(training, data).TotalSteps, memory);
    }

    /// <summary>The checkpoint that a run goes on from, as its flags say: that of <c>--resume_from_checkpoint</c>, else the newest of the output folder's last run.</summary>
    /// <param name="arguments">The arguments.</param>
    /// <returns>The checkpoint, or null to begin anew.</returns>
    /// <exception cref="CheckpointException">One is asked for, and there is none.</exception>
    public static string? CheckpointFor(LlavaArguments arguments)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        if (arguments.Run.Resume == CheckpointResume.Never) return null;
        string output = arguments.Training.OutputDirectory;
        string? checkpoint = arguments.Run.Checkpoint ?? TrainingCheckpoint.Latest(output);
        if (arguments.Run.Resume == CheckpointResume.Always && !Directory.Exists(checkpoint))
            throw new CheckpointException(checkpoint ?? output, checkpoint is null ? "--resume_from_checkpoint True wants a checkpoint of this folder's last run, and it has none" : "there is no such folder",
                "Name a checkpoint-N folder, or leave the flag out to begin anew where there is none.");
        return checkpoint;
    }

    private static readonly string[] LinearNames = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    /// <summary>A flag's note once it is known what the model will be: where the base's own value stays, that is said.</summary>
    private static FlagNote Resolved(FlagNote note, JsonObject config)
    {
        if (note.Outcome != FlagOutcome.Taken || !ConfiguredFlags.Contains(note.Flag)) return note;
        if (config[note.Flag] is not { } value) return note with { Outcome = FlagOutcome.Ignored, Text = $"{note.Text}: the base has no such setting" };
        string own = value.ToString();
        return own.Equals(note.Text, StringComparison.OrdinalIgnoreCase) ? note : note with { Outcome = FlagOutcome.Kept, Text = $"{note.Text}: the base has {own}, which stays" };
    }

    /// <summary>Where the event files of <c>--report_to tensorboard</c> go: transformers' form of a name, without the machine's.</summary>
    internal static string EventFolder(LlavaArguments arguments)
        => arguments.Run.LoggingFolder ?? Path.Combine(arguments.Training.OutputDirectory, "runs", FormattableString.Invariant($"{DateTime.Now:MMMdd_HH-mm-ss}"));
}
