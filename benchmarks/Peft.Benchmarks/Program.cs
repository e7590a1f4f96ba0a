using Peft.Benchmarks;
using static TorchSharp.torch;

string Option(string name, string fallback)
{
    int at = Array.IndexOf(args, "--" + name);
    return at >= 0 && at + 1 < args.Length ? args[at + 1] : fallback;
}

string scenario = Option("scenario", "lora_bf16"), sizeName = Option("size", "medium");
int batch = int.Parse(Option("batch", "2")), steps = int.Parse(Option("steps", "4"));
set_num_threads(int.Parse(Option("threads", "2")));
Clock.ProcessorTime = Option("clock", "wall") == "cpu";
string root = Option("checkpoints", Path.Combine(Path.GetTempPath(), "peft-benchmarks"));
var setup = TrainingSetup.All.Single(s => s.Name == scenario);
string folder = BenchmarkCheckpoint.Ensure(root, sizeName, BenchmarkSize.Of(sizeName));
var result = TrainingScenario.Run(setup, sizeName, batch, steps, folder, false);
foreach (var row in result.Rows)
    Console.WriteLine($"{row.Variant} {row.SecondsMedian:F3} s  {row.Rate:F1} {row.RateUnit}  MFU {row.MfuPercent:F1} %  peak {row.PeakRssMb:F0} MB  gemm {result.GemmBefore:F0}/{result.GemmAfter:F0}  {row.Note}");
