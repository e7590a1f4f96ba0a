using System.Diagnostics;
using Peft.Benchmarks;
using static TorchSharp.torch;

string[] others = ["load", "generate", "data", "save_adapter", "merge", "quantize", "optimizer", "adapters", "step_overhead", "feature_cache"];
string[] scenarios = [.. TrainingSetup.All.Select(s => s.Name), .. others];
var line = CommandLine.Parse(args);
if (line.Has("help"))
{
    Console.Write(CommandLine.Help(scenarios, BenchmarkSize.All.Keys));
    return 0;
}
string sizeName = line.Text("size", "medium"), scenario = line.Text("scenario", "lora_bf16"), output = line.Text("out", ""), clock = line.Text("clock", "wall");
string? problem = line.Problem
    ?? (scenarios.Contains(scenario) ? null : CommandLine.Unknown("scenario", scenario, scenarios))
    ?? (BenchmarkSize.All.ContainsKey(sizeName) ? null : CommandLine.Unknown("size", sizeName, BenchmarkSize.All.Keys))
    ?? (clock is "wall" or "cpu" ? null : CommandLine.Unknown("clock", clock, ["wall", "cpu"]));
int batch = 0, steps = 0, threads = 0;
try
{
    (batch, steps, threads) = (line.Number("batch", sizeName is "wide" or "medium1600" or "medium3136" ? 1 : 2), line.Number("steps", 4), line.Number("threads", 2));
}
catch (ArgumentException e)
{
    problem ??= e.Message;
}
if (problem is not null)
{
    Console.Error.WriteLine(problem + " --help lists the options.");
    return 2;
}
string root = line.Text("checkpoints", Path.Combine(Path.GetTempPath(), "peft-benchmarks"));
var size = BenchmarkSize.All[sizeName];
string folder = BenchmarkCheckpoint.Ensure(root, sizeName, size);

if (line.Has("all"))
{
    // Each scenario in a process of its own, so that memory and warm-up are its own.
    int failed = 0;
    foreach (string name in scenarios)
    {
        using var child = Process.Start(Environment.ProcessPath!, [.. Self(), .. args.Where(a => a != "--all"), "--scenario", name]);
        child.WaitForExit();
        if (child.ExitCode != 0) failed++;
    }
    return failed;
}

set_num_threads(threads);
Clock.ProcessorTime = clock == "cpu";
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
    var before = GemmPeak.Measure();
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
        _ => throw new ArgumentException($"The scenario '{name}' is listed and has no code."),
    };
    return BenchmarkResult.Of(name, sizeName, batch, before, GemmPeak.Measure(), rows);
}

// Under "dotnet program.dll" the process is dotnet itself and wants the program first.
static string[] Self() => Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet" ? [Environment.GetCommandLineArgs()[0]] : [];
