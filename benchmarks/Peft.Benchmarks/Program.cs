using System.Diagnostics;
using Peft.Benchmarks;
using static TorchSharp.torch;

// Peft.Benchmarks [--scenario NAME | --all] [--size medium] [--batch 2] [--steps 4] [--threads 2] [--out folder] [--clock wall|cpu]
string[] others = ["load", "generate", "data", "save_adapter", "merge", "quantize", "optimizer", "adapters", "step_overhead", "feature_cache"];
string sizeName = Option("size", "medium"), output = Option("out", "");
int batch = int.Parse(Option("batch", sizeName == "wide" ? "1" : "2")), steps = int.Parse(Option("steps", "4"));
string root = Option("checkpoints", Path.Combine(Path.GetTempPath(), "peft-benchmarks"));
var size = BenchmarkSize.Of(sizeName);
string folder = BenchmarkCheckpoint.Ensure(root, sizeName, size);

if (args.Contains("--all"))
{
    // Each scenario in a process of its own, so that memory and warm-up are its own.
    int failed = 0;
    foreach (string name in TrainingSetup.All.Select(s => s.Name).Concat(others))
    {
        using var child = Process.Start(Environment.ProcessPath!, [.. Self(), .. args.Where(a => a != "--all"), "--scenario", name]);
        child.WaitForExit();
        if (child.ExitCode != 0) failed++;
    }
    return failed;
}

set_num_threads(int.Parse(Option("threads", "2")));
Clock.ProcessorTime = Option("clock", "wall") == "cpu";
string scenario = Option("scenario", "lora_bf16");
var result = TrainingSetup.All.FirstOrDefault(s => s.Name == scenario) is { } setup
    ? TrainingScenario.Run(setup, sizeName, batch, steps, folder)
    : Other(scenario);
Table.Print(result);
if (output.Length > 0)
{
    Directory.CreateDirectory(output);
    result.Write(Path.Combine(output, $"{sizeName}-{scenario}.json"));
}
return 0;

BenchmarkResult Other(string name)
{
    double before = GemmPeak.Measure(ScalarType.BFloat16);
    var rows = name switch
    {
        "load" => LoadScenario.Run(folder, steps),
        "generate" => GenerationScenario.Run(folder, size, steps),
        "data" => DataScenario.Run(size, steps),
        "save_adapter" => AdapterScenario.SaveAndLoad(folder, steps),
        "merge" => AdapterScenario.Merge(folder, steps),
        "quantize" => QuantizeScenario.Run(folder, steps),
        "optimizer" => OptimizerScenario.Run(size, steps),
        "adapters" => AdapterCostScenario.Run(steps),
        "step_overhead" => StepOverheadScenario.Run(folder, size, batch, steps),
        "feature_cache" => FeatureCacheScenario.Run(folder, size, batch, steps),
        _ => throw new ArgumentException($"There is no scenario '{name}'. Scenarios: "
            + string.Join(", ", TrainingSetup.All.Select(s => s.Name).Concat(others)) + "."),
    };
    return new BenchmarkResult("Peft.Llava", name, sizeName, batch, get_num_threads(), Versions.All, "ok", before, GemmPeak.Measure(ScalarType.BFloat16), rows);
}

string Option(string name, string fallback)
{
    int at = Array.IndexOf(args, "--" + name);
    return at >= 0 && at + 1 < args.Length ? args[at + 1] : fallback;
}

// Under "dotnet program.dll" the process is dotnet itself and wants the program first.
static string[] Self() => Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet" ? [Environment.GetCommandLineArgs()[0]] : [];
