namespace Peft.Llava;

/// <summary>Options of LLaVA's own scripts (v1.5's where there is one), flag for flag; set the folder and what else differs by <c>with</c>.</summary>
public static class TrainingPresets
{
    /// <summary><c>finetune_lora.sh</c>: LoRA on instruction data, projector at a tenth of the rate.</summary>
    public static TrainingOptions FinetuneLora { get; } = Common with
    {
        Trainable = TrainableParts.Lora(),
        LearningRate = 2e-4,
        ProjectorLearningRate = 2e-5,
        Ordering = SampleOrdering.ByModalityLength,
    };

    /// <summary><c>finetune_task_lora.sh</c>: LoRA on one's own task, from a finished LLaVA.</summary>
    public static TrainingOptions FinetuneTaskLora { get; } = FinetuneLora with { };

    /// <summary><c>finetune_task.sh</c>: the whole language model on one's own task, from a finished LLaVA.</summary>
    public static TrainingOptions FinetuneTask { get; } = Common with
    {
        Trainable = TrainableParts.Full(),
        LearningRate = 2e-5,
        Ordering = SampleOrdering.ByModalityLength,
    };

    /// <summary><c>finetune_full_schedule.sh</c>: the whole language model for three epochs, the first LLaVA's schedule.</summary>
    public static TrainingOptions FinetuneFullSchedule { get; } = Common with { Trainable = TrainableParts.Full(), LearningRate = 2e-5, Epochs = 3 };

    /// <summary><c>finetune_sqa.sh</c>: the whole language model on ScienceQA for twelve epochs.</summary>
    public static TrainingOptions FinetuneSqa { get; } = FinetuneFullSchedule with { Epochs = 12 };

    /// <summary><c>finetune_qlora.sh</c>: LoRA on a 4-bit base.</summary>
    public static TrainingOptions FinetuneQlora { get; } = Common with { Trainable = TrainableParts.Lora(), LearningRate = 2e-5 };

    /// <summary><c>finetune.sh</c>: the whole language model.</summary>
    public static TrainingOptions Finetune { get; } = Common with
    {
        Trainable = TrainableParts.Full(),
        LearningRate = 2e-5,
        Ordering = SampleOrdering.ByModalityLength,
    };

    /// <summary><c>pretrain.sh</c>: stage 1, the projector alone.</summary>
    public static TrainingOptions Pretrain { get; } = Common with
    {
        Trainable = TrainableParts.ProjectorOnly(),
        LearningRate = 1e-3,
        BatchSize = 32,
        SaveSteps = 24_000,
    };

    /// <summary>The names of the presets: those of the scripts, without <c>.sh</c>.</summary>
    public static IReadOnlyList<string> Names => [.. All.Keys];

    /// <summary>The preset of a script's name, such as <c>finetune_lora</c>, or null.</summary>
    /// <param name="name">One of <see cref="Names"/>, without regard to case.</param>
    public static TrainingOptions? Find(string name) => All.GetValueOrDefault(name);

    private static Dictionary<string, TrainingOptions> All => new(StringComparer.OrdinalIgnoreCase)
    {
        ["pretrain"] = Pretrain,
        ["finetune"] = Finetune,
        ["finetune_full_schedule"] = FinetuneFullSchedule,
        ["finetune_lora"] = FinetuneLora,
        ["finetune_qlora"] = FinetuneQlora,
        ["finetune_sqa"] = FinetuneSqa,
        ["finetune_task"] = FinetuneTask,
        ["finetune_task_lora"] = FinetuneTaskLora,
    };

    private static TrainingOptions Common => new()
    {
        Precision = TrainingPrecision.BFloat16,
        Epochs = 1,
        BatchSize = 16,
        SaveSteps = 50_000,
        SaveTotalLimit = 1,
        WarmupRatio = 0.03,
        Schedule = ScheduleKind.Cosine,
        LoggingSteps = 1,
        MaxLength = 2048,
        GradientCheckpointing = true,
        DataWorkers = 4,
    };
}
