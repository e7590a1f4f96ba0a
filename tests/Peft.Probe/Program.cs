using Peft.Core;

// diagnose: prints the report. ensure: loads libtorch or prints the exception. Exit code 0 if libtorch is loaded.
switch (args)
{
    case ["diagnose"]:
        var report = PeftEnvironment.Diagnose();
        Console.Write(report);
        return report.IsLibtorchLoaded ? 0 : 1;
    case ["ensure"]:
        try
        {
            PeftEnvironment.EnsureLibtorch();
            return 0;
        }
        catch (LibtorchNotLoadedException e)
        {
            Console.Write(e.Message);
            return 1;
        }
    default:
        Console.Error.WriteLine("usage: Peft.Probe diagnose | ensure");
        return 2;
}
