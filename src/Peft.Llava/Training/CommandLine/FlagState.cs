using TorchSharp;

namespace Peft.Llava;

/// <summary>What the flags have said so far. Flags that decide together (<c>lora_enable</c>, <c>freeze_backbone</c>, …) are combined at the end.</summary>
internal sealed class FlagState
{
    public LlavaModelArguments Model { get; set; } = new();

    public LlavaDataArguments Data { get; set; } = new();

    public LlavaLoraArguments Lora { get; set; } = new();

    public TrainingOptions Training { get; set; } = new() { MaxLength = 512 };        // LLaVA's default

    public bool TuneProjector { get; set; }

    public bool FreezeProjector { get; set; }

    public bool FreezeBackbone { get; set; }

    public bool Half { get; set; }

    public bool BrainHalf { get; set; }

    public bool GroupByLength { get; set; }

    public bool GroupByModality { get; set; }

    public LlavaRunArguments Run { get; set; } = new();

    /// <summary>The file of <c>--deepspeed</c>, which is read when all flags are known.</summary>
    public string? DeepSpeed { get; set; }

    /// <summary>What became of the flags, by name and in their order.</summary>
    public OrderedDictionary<string, FlagNote> Notes { get; } = new(StringComparer.Ordinal);

    /// <summary>Notes a flag that changes nothing here.</summary>
    public void Ignore(string flag, string text, bool warns = false) => Notes[flag] = new FlagNote(flag, FlagOutcome.Ignored, text, warns);

    public LlavaArguments ToArguments(List<string> problems)
    {
        if (Model.ModelPath.Length == 0) problems.Add("--model_name_or_path is missing; it names the folder of the base model");
        if (Data.DataPath.Length == 0) problems.Add("--data_path is missing; it names the JSON file of the conversations");
        if (TuneProjector && FreezeProjector)
            problems.Add("--tune_mm_mlp_adapter and --freeze_mm_mlp_adapter contradict each other: one trains the projector alone, the other freezes it; give one of them");
        if (FreezeBackbone && Lora.Enabled)
            problems.Add("--freeze_backbone says nothing beside --lora_enable, which freezes the backbone anyway; leave it out");
        if (FreezeBackbone && TuneProjector)
            problems.Add("--freeze_backbone says nothing beside --tune_mm_mlp_adapter, which freezes the backbone anyway; leave it out");
        if (TuneProjector && Model.UseImageStartEnd == true)
            problems.Add("--mm_use_im_start_end True can't go with --tune_mm_mlp_adapter, in LLaVA's own script neither (NotImplementedError); give --mm_use_im_start_end False");
        if (Training.SaveAdapterAsPickle && !Lora.Enabled && !TuneProjector)
            problems.Add("--save_safetensors False is for adapters, and a whole model is written as safetensors; leave it out or add --lora_enable True");
        if (GroupByLength && GroupByModality)
            problems.Add("--group_by_length and --group_by_modality_length contradict each other; give one of them");
        if (Model.Bits != 16 && !Lora.Enabled && !TuneProjector)
            problems.Add($"--bits {Model.Bits} stores the base so that it can't be trained itself; add --lora_enable True or use --bits 16");
        if (Half && BrainHalf) problems.Add("--fp16 and --bf16 contradict each other; give one of them");
        if (Half && !Lora.Enabled && !TuneProjector)
            problems.Add("--fp16 can't train the language model itself, whose steps would be lost to rounding; add --lora_enable True or use --bf16 True");
        bool projector = !FreezeProjector;
        var trainable = (Lora.Enabled, TuneProjector) switch
        {
            (true, true) => new TrainableParts { Projector = true, FreezeAdapterAfterCreation = true },
            (true, false) => TrainableParts.Lora(projector),
            (false, true) => TrainableParts.ProjectorOnly(),
            _ when FreezeBackbone => new TrainableParts { Head = true, Projector = projector },
            _ => TrainableParts.Full(projector),
        };
        var training = Training with
        {
            Trainable = trainable,
            Precision = Half ? TrainingPrecision.Float16 : BrainHalf ? TrainingPrecision.BFloat16 : TrainingPrecision.Float32,
            Ordering = GroupByModality ? SampleOrdering.ByModalityLength : GroupByLength ? SampleOrdering.ByLength : SampleOrdering.Shuffled,
        };
        if (DeepSpeed is not null)
        {
            (training, string taken) = DeepSpeedFile.Read(DeepSpeed, training, problems);
            Notes["deepspeed"] = new FlagNote("deepspeed", FlagOutcome.Taken, taken, Warns: true);
        }
        if (training is { Tf32: true } && (training.UseCpu || !torch.cuda.is_available()))
        {
            training = training with { Tf32 = null };
            Ignore("tf32", "True: tf32 is a mode of NVIDIA GPUs, and the run is on the CPU, in float32 as it is", warns: true);
        }
        if (Run is { LoggingFolder: not null, TensorBoard: false }) Ignore("logging_dir", "names the folder of event files, and there are none without --report_to tensorboard", warns: true);
        problems.AddRange(training.Problems().Select(p => p.Replace("OutputDirectory is empty", "--output_dir is missing", StringComparison.Ordinal)));
        return new LlavaArguments { Model = Model, Data = Data, Lora = Lora, Training = training, Run = Run with { Notes = [.. Notes.Values] } };
    }
}
