using ManyAdapters;
using Peft.Core;

// One base, three adapters: mixed in one batch, added and subtracted, scaled at run time. The adapters are trained by the first run and read by
// later ones; --steps N trains them anew, for N steps each.
int? steps = args switch
{
    [] => null,
    ["--steps", var text] when int.TryParse(text, out int number) && number > 0 => number,
    _ => -1,
};
if (steps == -1)
{
    Console.Error.WriteLine("usage: ManyAdapters [--steps N]");
    return 2;
}
try
{
    using var stop = new InterruptToken(() => Console.Error.WriteLine("Ending after this step; once more ends at once."));
    PeftEnvironment.EnsureLibtorch();
    using var job = new ManyAdaptersJob(steps, stop.Token);
    job.Run();
    return 0;
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
