using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The steps of LLaVA's <c>train.py</c> before the training itself, from its own arguments.</summary>
public static partial class LlavaRecipe
{
    /// <summary>
    /// Loads the base, adds tower, projector and image tokens as the arguments say, and puts LoRA on it if they ask for it. Seeds torch's
    /// generator for the adapter's start, and puts it back.
    /// </summary>
    /// <param name="arguments">The arguments; paths are relative to the working folder.</param>
    /// <param name="chooseDevice">Where the model goes; null for <see cref="DefaultDevice"/>.</param>
    /// <returns>Model and adapters; the caller disposes it.</returns>
    /// <exception cref="TrainingOptionsException">The arguments cannot be honoured.</exception>
    /// <exception cref="TokenizerFileException">Tokens are to be added, and the base's tokenizer cannot be read.</exception>
    /// <exception cref="InvalidConfigurationException">A configuration holds values that cannot be used.</exception>
    /// <exception cref="CheckpointMismatchException">
    /// Tensors of the base, the tower or the projector are missing or of another shape; <c>--pretrain_mm_mlp_adapter</c> holds another projector than the model's.
    /// </exception>
    public static PreparedModel PrepareModel(LlavaArguments arguments, Func<LlavaArguments, Device>? chooseDevice = null)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        using var seed = TorchSeed.Use(arguments.Training.Seed);
        var warnings = new List<string>();
        var model = BaseAssembly.Build(arguments, (chooseDevice ?? (a => new Device(DefaultDevice(a))))(arguments), warnings);
        try
        {
            KbitRecipe.Prepare(model, arguments);
            if (!arguments.Lora.Enabled) return new PreparedModel(model, null) { Warnings = warnings };
            // LLaVA's adapter has the base's dtype; PEFT's newer default would keep it in float32. In float16 LLaVA's own run ends at the first
            // step ("Attempting to unscale FP16 gradients"), so what learns is float32 there.
            var adapter = new AdapterOptions { UpcastToFloat32 = arguments.Training.Precision == TrainingPrecision.Float16 };
            return new PreparedModel(model, model.GetPeftModel(ConfigOf(arguments, TargetsOf(model)), options: adapter)) { Warnings = warnings };
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Where a run from flags computes: on an NVIDIA GPU that libtorch sees, unless <c>--use_cpu</c> says otherwise.</summary>
    /// <param name="arguments">The arguments.</param>
    /// <param name="cudaAvailable">Whether there is such a GPU; null to ask libtorch.</param>
    public static DeviceType DefaultDevice(LlavaArguments arguments, bool? cudaAvailable = null)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        return arguments.Training.UseCpu || !(cudaAvailable ?? cuda.is_available()) ? DeviceType.CPU : DeviceType.CUDA;
    }

    /// <summary>Reads the data that the arguments name, with the base's tokenizer and the tower's image settings.</summary>
    /// <param name="arguments">The arguments; paths are relative to the working folder.</param>
    /// <param name="model">The model that will learn from it.</param>
    /// <returns>The data. In the LLaVA-exact mode labels and samples are LLaVA's own, slips included.</returns>
    /// <exception cref="TrainingOptionsException">The template or the tokens for images cannot be honoured.</exception>
    /// <exception cref="DataFileException">The file cannot be read, or records are malformed.</exception>
    public static LlavaTrainingData PrepareData(LlavaArguments arguments, LlavaModel model)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        ArgumentNullException.ThrowIfNull(model);
        return PrepareData(arguments, model.Config);
    }

    private static LlavaTrainingData PrepareData(LlavaArguments arguments, LlavaConfig config)
    {
        int limit = LengthLimit.Of(arguments.Training.MaxLength, config, LlamaTokenizer.FromFolder(arguments.Model.ModelPath));
        var own = LlavaConfig.Load(arguments.Model.ModelPath);
        var processor = ProcessorOf(arguments, own, limit);
        var options = arguments.Training.Weighting == StepWeighting.LlavaExact
            // The zero picture of a text-only sample gives a gradient of zero, which the step writes without it.
            ? DataOptions.LlavaExact with { ZeroImageForTextOnly = false }
            : new DataOptions();
        options = options with { UseImageStartEnd = ImageTokens.UsesStartEnd(arguments, own) };
        var dataset = arguments.Data.DataPath.EndsWith(".jsonl", StringComparison.OrdinalIgnoreCase)
            ? LlavaDataset.FromJsonLines(arguments.Data.DataPath, arguments.Data.ImageFolder, processor, options)
            : LlavaDataset.FromJson(arguments.Data.DataPath, arguments.Data.ImageFolder, processor, options);
        return new LlavaTrainingData(dataset, config, limit);
    }

    private static LlavaProcessor ProcessorOf(LlavaArguments arguments, LlavaConfig own, int limit)
    {
        string version = arguments.Model.Version;
        // Neither names a template in LLaVA: the default one stays.
        var template = version is "v0" or "v0.5" ? Templates.Default : Templates.ByName(version);
        var tokenizer = LlamaTokenizer.FromFolder(arguments.Model.ModelPath, new TokenizerOptions { ModelMaxLength = limit });
        if (version == "v0")
        {
            // v0 keeps the tokenizer's own padding token, every other version takes the unknown token.
            if (tokenizer.PadId is null)
                throw new TrainingOptionsException(["--version v0, the default, adds a [PAD] row to a vocabulary without a padding token, and the base's tokenizer has none; "
                    + "give the template of your base, such as --version v1 or --version plain"]);
        }
        else if (tokenizer.UnknownId is int unknown) tokenizer = tokenizer.WithPadToken(tokenizer.TokenOf(unknown));
        tokenizer = ImageTokens.Extend(tokenizer, arguments, own);
        var images = arguments.Model.VisionTower is { } tower
            ? new ClipImageProcessor(ImageProcessorConfig.Load(Path.Combine(tower, "preprocessor_config.json")), AspectPolicies.Parse(arguments.Data.ImageAspectRatio ?? "square"), own.GridPinpoints)
            : LlavaProcessor.FromFolder(arguments.Model.ModelPath).Images;
        return new LlavaProcessor(tokenizer, images, template);
    }

    private static LoraConfig ConfigOf(LlavaArguments arguments, TargetModules targets) => new()
    {
        Rank = arguments.Lora.Rank,
        Alpha = arguments.Lora.Alpha,
        Dropout = arguments.Lora.Dropout,
        Bias = arguments.Lora.Bias switch
        {
            "all" => LoraBias.All,
            "lora_only" => LoraBias.LoraOnly,
            _ => LoraBias.None,
        },
        TargetModules = targets,
        TaskType = "CAUSAL_LM",
        BaseModel = arguments.Model.ModelPath,
    };

    // In a llava-hf model a bare name means the vision tower's layers too, so the language model is named.
    private static TargetModules TargetsOf(LlavaModel model)
    {
        string[] names = model.FindAllLinearNames();
        return model.Config.Layout is CheckpointLayout.HuggingFace or CheckpointLayout.HuggingFaceNext
            ? TargetModules.Regex($@".*language_model.*\.({string.Join('|', names)})")
            : names;
    }
}

/// <summary>A model ready to be trained, with or without adapters.</summary>
/// <param name="Model">The model.</param>
/// <param name="Peft">Its adapters, or null.</param>
public sealed record PreparedModel(LlavaModel Model, PeftModel? Peft) : IDisposable
{
    /// <summary>What is not done as a flag says, as LLaVA does not either: one sentence each. Show them before the training.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];

    /// <summary>A trainer of it.</summary>
    /// <param name="data">The samples.</param>
    /// <param name="options">The options.</param>
    /// <param name="observers">Who watches.</param>
    public LLaVATrainer TrainerFor(ITrainingData data, TrainingOptions options, params IReadOnlyList<ITrainingObserver> observers)
        => Peft is null ? new LLaVATrainer(Model, data, options, observers) : new LLaVATrainer(Peft, data, options, observers);

    /// <summary>
    /// The trainer that LLaVA's flags ask for: with TensorBoard's observer if they name it, and going on from the checkpoint of <see cref="LlavaRecipe.CheckpointFor"/>, as LLaVA's
    /// script does wherever there is one.
    /// </summary>
    /// <param name="data">The samples.</param>
    /// <param name="arguments">The arguments.</param>
    /// <param name="observers">Who watches too.</param>
    /// <exception cref="CheckpointException">The checkpoint cannot be used.</exception>
    /// <exception cref="StateMismatchException">The checkpoint is one of another base, other data or other options.</exception>
    public LLaVATrainer TrainerFor(ITrainingData data, LlavaArguments arguments, params IReadOnlyList<ITrainingObserver> observers)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        string? checkpoint = LlavaRecipe.CheckpointFor(arguments);
        var trainer = TrainerFor(data, arguments.Training, arguments.Run.TensorBoard ? [.. observers, new TensorBoardObserver(LlavaRecipe.EventFolder(arguments))] : observers);
        try
        {
            if (checkpoint is not null) trainer.ResumeFrom(checkpoint);
            return trainer;
        }
        catch
        {
            trainer.Dispose();
            throw;
        }
    }

    /// <summary>Releases adapters and model.</summary>
    public void Dispose()
    {
        Peft?.Dispose();
        Model.Dispose();
    }
}
