using FinetuneLora;
using Peft.Core;

// Without arguments: the whole job on the data in samples/data. With arguments: LLaVA's own flags, as its finetune_lora.sh gives them.
try
{
    using var stop = new InterruptToken(() => Console.Error.WriteLine("Ending after this step; once more ends at once."));
    PeftEnvironment.EnsureLibtorch();
    return args.Length == 0 ? new DemoJob(stop.Token).Run() : FlagsJob.Run(args, stop.Token);
}
catch (OperationCanceledException e)
{
    Console.Error.WriteLine(e.Message);
    return 130;
}
catch (PeftException e)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
