using Peft.Core;
using Peft.Llava;
using Peft.TrainingProbe;

// train FOLDER STEPS OPTIMIZER: trains to the end and saves, from the newest checkpoint in the folder on; says where it is, so that it can be killed there.
// interrupt FOLDER STEPS: trains until Ctrl-C. full FOLDER STEPS OUTPUT: trains on a small disk that is full after step 3, makes room, saves and ends in OUTPUT.
// logs FOLDER OUTPUT: writes logs on a small disk that fills up. steps COUNT: trains many steps; fails if tensors are left or resident memory grows by more than 1 %.
// tiny: makes a tiny model, or prints why libtorch does not load.
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
    case ["interrupt", var folder, var steps]:
        using (var interrupt = new InterruptToken(() => Console.WriteLine("interrupted")))
        using (var run = new ProbeRun(folder, int.Parse(steps), OptimizerKind.AdamW, new Announcer()))
        {
            try
            {
                run.Trainer.Train(interrupt.Token);
                return 0;
            }
            catch (TrainingCanceledException e)
            {
                Console.WriteLine(e.Message);
                return 130;
            }
        }
    case ["full", var folder, var steps, var output]:
        FullDisk.Train(folder, int.Parse(steps), output);
        return 0;
    case ["logs", var folder, var output]:
        FullDiskLogs.Write(folder, output);
        return 0;
    case ["tiny"]:
        try
        {
            using var tiny = TinyLlava.Create();
            return 0;
        }
        catch (LibtorchNotLoadedException e)
        {
            Console.WriteLine(e.Message);
            return 1;
        }
    case ["steps", var steps]:
        return LongRun.Train(int.Parse(steps));
    default:
        Console.Error.WriteLine("usage: Peft.TrainingProbe train FOLDER STEPS OPTIMIZER | interrupt FOLDER STEPS | full FOLDER STEPS OUTPUT | logs FOLDER OUTPUT | tiny | steps COUNT");
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
