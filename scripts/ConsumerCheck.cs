// The program of an application outside the repository: LoRA on the tiny random LLaVA, three steps, saved, loaded back.
using Peft.Core;
using Peft.Llava;

using var tiny = TinyLlava.Create(seed: 1);
using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 4, Alpha = 8, TargetModules = tiny.Model.FindAllLinearNames() });
var options = new TrainingOptions { OutputDirectory = "saved", LearningRate = 1e-3, MaxSteps = 3, BatchSize = 4, SaveStrategy = SaveStrategy.None };
using var trainer = new LLaVATrainer(peft, tiny.Dataset(12), options, new Printer());
trainer.Train();
trainer.SaveModel();

using var fresh = TinyLlava.Create(seed: 1);
using var loaded = TrainedFolder.Load(fresh.Model, "saved");
Console.WriteLine($"loaded {string.Join(", ", loaded.ActiveAdapters)} from {string.Join(", ", Directory.GetFiles("saved").Select(Path.GetFileName).Order())}");
Console.WriteLine(PeftEnvironment.Diagnose());

internal sealed class Printer : ITrainingObserver
{
    public TrainingVerdict OnStep(StepReport report)
    {
        Console.WriteLine($"step {report.Step} of {report.TotalSteps}: loss {report.Loss:F4}, {report.SupervisedTokens} supervised tokens");
        return TrainingVerdict.Continue;
    }
}
