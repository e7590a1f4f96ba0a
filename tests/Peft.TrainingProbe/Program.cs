using Peft.Llava;
using Peft.TrainingProbe;

// train FOLDER STEPS OPTIMIZER: trains to the end and saves, from the newest checkpoint in the folder on; says where it is, so that it can be killed there.
switch (args)
{
    case ["train", var folder, var steps, var optimizer]:
        using (var run = new ProbeRun(folder, int.Parse(steps), Enum.Parse<OptimizerKind>(optimizer), new Announcer()))
        {
            Console.WriteLine($"from {run.Trainer.StepsDone}");
            run.Trainer.Train();
            run.Trainer.SaveModel();
        }
        Console.WriteLine("done");
        return 0;
    default:
        Console.Error.WriteLine("usage: Peft.TrainingProbe train FOLDER STEPS OPTIMIZER");
        return 2;
}

/// <summary>Prints "saving N" before the checkpoint of step N is begun, and "step N" when the step and its checkpoint are done.</summary>
internal sealed class Announcer : ITrainingObserver
{
    public void OnGradients(int step, IReadOnlyList<ParameterGroup> groups)
    {
        if (step % ProbeRun.SaveSteps == 0) Console.WriteLine($"saving {step}");
    }

    public TrainingVerdict OnStep(StepReport report)
    {
        Console.WriteLine($"step {report.Step}");
        return TrainingVerdict.Continue;
    }
}
