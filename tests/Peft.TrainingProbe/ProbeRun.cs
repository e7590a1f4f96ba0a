using Peft.Core;
using Peft.Llava;
using static TorchSharp.torch;

namespace Peft.TrainingProbe;

/// <summary>
/// The training of a tiny LLaVA that everything is in: LoRA and projector, shuffled order, dropout, accumulation that ends with the epoch, a worker for
/// the data, a checkpoint every three steps of which two are kept. Goes on from the newest checkpoint in its folder.
/// </summary>
internal sealed class ProbeRun : IDisposable
{
    public const int SaveSteps = 3;

    private readonly TinyLlava _tiny;
    private readonly PeftModel _peft;

    public ProbeRun(string folder, int steps, OptimizerKind optimizer, params ITrainingObserver[] observers)
        : this(folder, steps, optimizer, save: true, observers)
    {
    }

    public ProbeRun(string folder, int steps, OptimizerKind optimizer, bool save, params ITrainingObserver[] observers)
    {
        set_num_threads(1);   // beside other processes, and as fast on so small a model
        _tiny = TinyLlava.Create(seed: 5);
        manual_seed(11);
        _peft = _tiny.Model.GetPeftModel(new LoraConfig
        {
            Rank = 3, Alpha = 7, Dropout = 0.2, TargetModules = (string[])["q_proj", "v_proj", "down_proj"], ExcludeModules = TargetModules.Regex(".*vision_tower.*"),
            BaseModel = "tiny",
        });
        Trainer = new LLaVATrainer(_peft, _tiny.Dataset(13), new TrainingOptions
        {
            OutputDirectory = folder, LearningRate = 0.01, ProjectorLearningRate = 0.003, WeightDecay = 0.01, MaxSteps = steps, BatchSize = 2, AccumulationSteps = 2,
            Optimizer = optimizer, WarmupSteps = 2, Schedule = ScheduleKind.Cosine, MaxLength = 256, DataWorkers = save ? 1 : 0, LoggingSteps = 2, Seed = 19,
            SaveStrategy = save ? SaveStrategy.Steps : SaveStrategy.None, SaveSteps = SaveSteps, SaveTotalLimit = 2,
        }, observers);
        Checkpoint = TrainingCheckpoint.Latest(folder);
        if (Checkpoint is not null) Trainer.ResumeFrom(Checkpoint);
    }

    public LLaVATrainer Trainer { get; }

    /// <summary>The checkpoint it goes on from, or null.</summary>
    public string? Checkpoint { get; }

    public void Dispose()
    {
        Trainer.Dispose();
        _peft.Dispose();
        _tiny.Dispose();
    }
}
