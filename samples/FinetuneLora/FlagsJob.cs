using Peft.Llava;
using Peft.Samples;

namespace FinetuneLora;

/// <summary>What LLaVA's train.py does with the same flags.</summary>
internal static class FlagsJob
{
    public static int Run(string[] flags, CancellationToken stop)
    {
        var arguments = LlavaCommandLine.Parse(flags);
        foreach (var warning in arguments.Run.Warnings) Console.Error.WriteLine(warning);
        if (arguments.Run.DryRun)
        {
            Console.WriteLine(LlavaRecipe.DryRun(arguments));
            return 0;
        }
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        foreach (string warning in prepared.Warnings) Console.Error.WriteLine(warning);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        var progress = new ProgressLine("train");
        using var trainer = prepared.TrainerFor(data, arguments, progress);
        trainer.Train(stop);
        trainer.SaveModel();
        Console.WriteLine($"saved in {arguments.Training.OutputDirectory}");
        return 0;
    }
}
