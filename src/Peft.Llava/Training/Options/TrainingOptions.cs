using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.Configuration;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Everything that decides a training, immutable; the defaults are LLaVA's. <see cref="Problems"/> reports all faults at once, and the
/// trainer refuses to start while there are any.
/// </summary>
public sealed record TrainingOptions
{
    private static readonly JsonSerializerOptions Json = new()
    {
        WriteIndented = true,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter(allowIntegerValues: false) },
    };

    /// <summary>Where the results go. Required.</summary>
    public string OutputDirectory { get; init; } = "";

    /// <summary>What the saved files call the base (<c>_name_or_path</c>); null for the adapter's own entry, or the base's folder.</summary>
    public string? BaseModelName { get; init; }

    /// <summary>Which parts of the model learn.</summary>
    public TrainableParts Trainable { get; init; } = TrainableParts.Lora();

    /// <summary>Learning rate of everything without one of its own.</summary>
    public double LearningRate { get; init; } = 5e-5;

    /// <summary>The projector's own rate; null for <see cref="LearningRate"/>. With a frozen projector its two groups stay empty, as in LLaVA.</summary>
    public double? ProjectorLearningRate { get; init; }

    /// <summary>The form of the rate over time.</summary>
    public ScheduleKind Schedule { get; init; } = ScheduleKind.Linear;

    /// <summary>Waves of the cosine schedules; null for the form's default.</summary>
    public double? ScheduleCycles { get; init; }

    /// <summary>Steps of warm-up; 0 lets <see cref="WarmupRatio"/> decide.</summary>
    public int WarmupSteps { get; init; }

    /// <summary>Share of all steps that warm up (rounded up).</summary>
    public double WarmupRatio { get; init; }

    /// <summary>The optimizer.</summary>
    public OptimizerKind Optimizer { get; init; } = OptimizerKind.AdamW;

    /// <summary>Decay of weights; norms and biases never decay.</summary>
    public double WeightDecay { get; init; }

    /// <summary>Decay of Adam's first moment.</summary>
    public double AdamBeta1 { get; init; } = 0.9;

    /// <summary>Decay of Adam's second moment.</summary>
    public double AdamBeta2 { get; init; } = 0.999;

    /// <summary>Added to the root of Adam's second moment.</summary>
    public double AdamEpsilon { get; init; } = 1e-8;

    /// <summary>The bound of the norm over all gradients; 0 for none.</summary>
    public double MaxGradNorm { get; init; } = 1;

    /// <summary>Passes over the data; <see cref="MaxSteps"/> goes before it.</summary>
    public double Epochs { get; init; } = 3;

    /// <summary>Optimizer steps; 0 or less lets <see cref="Epochs"/> decide.</summary>
    public int MaxSteps { get; init; } = -1;

    /// <summary>Samples per micro-batch.</summary>
    public int BatchSize { get; init; } = 8;

    /// <summary>Micro-batches per step.</summary>
    public int AccumulationSteps { get; init; } = 1;

    /// <summary>Leaves out the last batch of an epoch if it is not full.</summary>
    public bool DropLastBatch { get; init; }

    /// <summary>How the samples of an epoch are ordered.</summary>
    public SampleOrdering Ordering { get; init; } = SampleOrdering.Shuffled;

    /// <summary>
    /// Exchanges the first micro-batch of the whole training with the longest of the first epoch, so that memory which does not suffice shows at once;
    /// the rest of the order stays. Tokens of all samples are counted for it before the first step. Off by default, since LLaVA's order is another.
    /// </summary>
    public bool LongestBatchFirst { get; init; }

    /// <summary>Decides order and dropout, two streams apart from each other and from torch's generator. LoRA's start is drawn by <c>GetPeftModel</c> before, as in LLaVA.</summary>
    public long Seed { get; init; } = 42;

    /// <summary>How the micro-batches of a step weigh.</summary>
    public StepWeighting Weighting { get; init; } = StepWeighting.SupervisedTokens;

    /// <summary>Dtypes of computation and weights.</summary>
    public TrainingPrecision Precision { get; init; } = TrainingPrecision.Float32;

    /// <summary>How the loss is scaled; of use with <see cref="TrainingPrecision.Float16"/> only.</summary>
    public GradientScalerOptions LossScaling { get; init; } = new();

    /// <summary>Lets an NVIDIA GPU round the factors of float32 products to 10 bits; null leaves libtorch's setting.</summary>
    public bool? Tf32 { get; init; }

    /// <summary>Refuses a model that is not on the CPU. Without it the training runs where the model is; the trainer never moves it.</summary>
    public bool UseCpu { get; init; }

    /// <summary>Recomputes each decoder layer in the backward pass in place of keeping its inner values.</summary>
    public bool GradientCheckpointing { get; init; }

    /// <summary>
    /// The longest sequence, image features included; longer ones are cut. Null, the default, is what the model was made for: <c>tokenizer_model_max_length</c> of its
    /// configuration, otherwise the tokenizer's <c>model_max_length</c> below a million, otherwise <c>max_position_embeddings</c>. LLaVA's flags start from 512.
    /// </summary>
    public int? MaxLength { get; init; }

    /// <summary>Threads that prepare batches ahead of the step; 0 prepares them in between.</summary>
    public int DataWorkers { get; init; }

    /// <summary>When to write <c>checkpoint-N</c> folders.</summary>
    public SaveStrategy SaveStrategy { get; init; } = SaveStrategy.Steps;

    /// <summary>Steps between checkpoints.</summary>
    public int SaveSteps { get; init; } = 500;

    /// <summary>Checkpoints of this run to keep; its oldest go. Null keeps all. What another run left in the folder stays and does not count.</summary>
    public int? SaveTotalLimit { get; init; }

    /// <summary>Lets a checkpoint take the place of one of the same step that another run left in the folder; without it that is refused before the first step.</summary>
    public bool ReplaceCheckpoints { get; init; }

    /// <summary>Writes the adapter as <c>adapter_model.bin</c> in place of safetensors.</summary>
    public bool SaveAdapterAsPickle { get; init; }

    /// <summary>The most bytes of tensors in one file of a whole model that is saved; more are split as transformers does (<c>max_shard_size</c>).</summary>
    public long MaxShardBytes { get; init; } = ShardedWriter.DefaultShardBytes;

    /// <summary>Steps between the entries of <c>trainer_state.json</c>'s history.</summary>
    public int LoggingSteps { get; init; } = 500;

    /// <summary>Evaluation during the training, the best weights, early stop.</summary>
    public EvaluationOptions Evaluation { get; init; } = new();

    /// <summary>
    /// Reads options from JSON; enums by name. <c>"Preset": "finetune_lora"</c> starts from one of <see cref="TrainingPresets"/>. Unknown fields and
    /// values that can't be read are refused, all of them at once; whether the values make sense together is for <see cref="Problems"/>.
    /// </summary>
    /// <exception cref="TrainingOptionsException">The text is no such JSON.</exception>
    public static TrainingOptions FromJson(string json)
    {
        var problems = new List<string>();
        try
        {
            using var document = JsonDocument.Parse(json);
            var options = SettingsReader.Read(SettingNode.Of(document.RootElement), problems);
            return problems.Count == 0 ? options : throw new TrainingOptionsException(problems);
        }
        catch (JsonException e)
        {
            throw new TrainingOptionsException([$"the JSON can't be read ({e.Message.TrimEnd('.')}); the fields are those of TrainingOptions"]);
        }
    }

    /// <summary>Reads options from a host's configuration, as <see cref="FromJson"/> does, and checks them.</summary>
    /// <param name="section">The section that holds them, such as <c>configuration.GetSection("Training")</c>.</param>
    /// <exception cref="TrainingOptionsException">Settings are unknown, can't be read or make no sense; all of them are named.</exception>
    public static TrainingOptions FromConfiguration(IConfiguration section)
    {
        ArgumentNullException.ThrowIfNull(section);
        var problems = new List<string>();
        var options = SettingsReader.Read(SettingNode.Of(section), problems);
        problems.AddRange(options.Problems());
        return problems.Count == 0 ? options : throw new TrainingOptionsException(problems);
    }

    /// <summary>Reads options from a file of <see cref="Save"/>, or one written by hand.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="TrainingOptionsException">The file can't be read, or holds no such JSON.</exception>
    public static TrainingOptions Load(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TrainingOptionsException([$"the file {path} can't be read ({e.Message.TrimEnd('.')})"]);
        }
        return FromJson(text);
    }

    /// <summary>Writes the options to a file that <see cref="Load"/> reads; an earlier one is replaced as a whole.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public void Save(string path) => AtomicFile.WriteText(path, ToJson() + "\n");

    /// <summary>The options as JSON that <see cref="FromJson"/> reads.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Json);

    /// <summary>All that is wrong with the options: one sentence each, empty when they are sound.</summary>
    public IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        void Want(bool condition, string problem)
        {
            if (!condition) problems.Add(problem);
        }
        Want(!string.IsNullOrWhiteSpace(OutputDirectory), "OutputDirectory is empty; name a folder for the results");
        Want(LearningRate is > 0 and < double.PositiveInfinity, $"LearningRate {LearningRate:R} is not a positive number");
        Want(ProjectorLearningRate is null or (> 0 and < double.PositiveInfinity), $"ProjectorLearningRate {ProjectorLearningRate:R} is not a positive number; null takes LearningRate");
        Want(WeightDecay is >= 0 and < double.PositiveInfinity, $"WeightDecay {WeightDecay:R} is negative or not a number");
        Want(AdamBeta1 is >= 0 and < 1, $"AdamBeta1 {AdamBeta1:R} is not in [0, 1)");
        Want(AdamBeta2 is >= 0 and < 1, $"AdamBeta2 {AdamBeta2:R} is not in [0, 1)");
        Want(AdamEpsilon is > 0 and < double.PositiveInfinity, $"AdamEpsilon {AdamEpsilon:R} is not a positive number");
        Want(MaxGradNorm >= 0, $"MaxGradNorm {MaxGradNorm:R} is negative; 0 switches clipping off");
        Want(WarmupRatio is >= 0 and <= 1, $"WarmupRatio {WarmupRatio:R} is not in [0, 1]");
        Want(WarmupSteps >= 0, $"WarmupSteps {WarmupSteps} is negative");
        Want(ScheduleCycles is null or > 0, $"ScheduleCycles {ScheduleCycles:R} is not positive");
        Want(MaxSteps > 0 || Epochs is > 0 and < double.PositiveInfinity, $"Epochs {Epochs:R} and MaxSteps {MaxSteps} leave nothing to do; set one of them above 0");
        Want(BatchSize > 0, $"BatchSize {BatchSize} is not positive");
        Want(AccumulationSteps > 0, $"AccumulationSteps {AccumulationSteps} is not positive");
        Want(MaxLength is null or > 0, $"MaxLength {MaxLength} is not positive");
        Want(DataWorkers >= 0, $"DataWorkers {DataWorkers} is negative; 0 prepares batches between the steps");
        Want(SaveStrategy != SaveStrategy.Steps || SaveSteps > 0, $"SaveSteps {SaveSteps} is not positive; choose SaveStrategy.None to save at the end only");
        Want(SaveTotalLimit is null or > 0, $"SaveTotalLimit {SaveTotalLimit} is not positive; null keeps all checkpoints");
        Want(MaxShardBytes > 0, $"MaxShardBytes {MaxShardBytes} is not positive");
        Want(LoggingSteps > 0, $"LoggingSteps {LoggingSteps} is not positive");
        Want(Schedule != ScheduleKind.Polynomial || LearningRate > 1e-7, $"the polynomial schedule ends at 1E-07 and cannot start at LearningRate {LearningRate:R}");
        problems.AddRange(Evaluation.Problems().Select(p => $"Evaluation.{p}"));
        problems.AddRange(LossScaling.Problems().Select(p => $"LossScaling.{p}"));
        problems.AddRange(Trainable.Problems());
        return problems;
    }

    /// <summary>Throws if <see cref="Problems"/> finds any.</summary>
    /// <exception cref="TrainingOptionsException">All problems.</exception>
    public void ThrowIfInvalid()
    {
        var problems = Problems();
        if (problems.Count > 0) throw new TrainingOptionsException(problems);
    }
}
