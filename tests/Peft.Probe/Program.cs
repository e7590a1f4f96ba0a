using Peft.Core;
using static TorchSharp.torch;

// diagnose: prints the report. levels: prints the levels of the processor that this process can run. ensure: loads libtorch or prints the exception. Exit code 0 if libtorch is loaded.
// sweep FOLDER: AtomicFile.Sweep, or what it says. save FOLDER: writes the same files again and again, each time full of another number, until the process is killed.
switch (args)
{
    case ["diagnose"]:
        var report = PeftEnvironment.Diagnose();
        Console.Write(report);
        return report.IsLibtorchLoaded ? 0 : 1;
    case ["levels"]:
        Console.WriteLine(string.Join(' ', CpuLevels.Supported.Select(CpuLevels.NameOf)));
        return 0;
    case ["ensure"]:
        try
        {
            PeftEnvironment.EnsureLibtorch();
            return 0;
        }
        catch (PeftException e) when (e is LibtorchNotLoadedException or CpuLevelException)
        {
            Console.Write(e.Message);
            return 1;
        }
    case ["sweep", var folder]:
        try
        {
            AtomicFile.Sweep(folder);
            return 0;
        }
        catch (FileWriteException e)
        {
            Console.Write(e.Message);
            return 1;
        }
    case ["save", var folder]:
        for (int round = 1; ; round++)
        {
            using var scope = NewDisposeScope();
            var tensors = new Dictionary<string, Tensor> { ["first"] = full([300_000], (float)round), ["second"] = full([7, 11], (float)round) };
            SafetensorsWriter.Write(Path.Combine(folder, "adapter_model.safetensors"), tensors);
            PickleWriter.Write(Path.Combine(folder, "non_lora_trainables.bin"), tensors);
            if (round == 1) Console.WriteLine("saved");
        }
    default:
        Console.Error.WriteLine("usage: Peft.Probe diagnose | levels | ensure | sweep FOLDER | save FOLDER");
        return 2;
}
