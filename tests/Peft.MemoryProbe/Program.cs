using System.Globalization;
using Peft.Core;
using Peft.Llava;
using Peft.MemoryProbe;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

// Peft.MemoryProbe CASE: trains a few steps; prints the estimate and, as the last line, "measured BYTES estimated BYTES".
var probe = ProbeCase.All.Single(c => c.Name == args[0]);
set_num_threads(2);
ResidentMemory watched = null!;
string folder = Directory.CreateTempSubdirectory("memory").FullName;
try
{
    using var memory = new ResidentMemory();
    watched = memory;
    ones(1).Dispose();
    Note("start");
    var quantizer = probe.Quantization is { } quantization ? new ModelQuantizer(quantization) : null;
    using var model = LlavaModel.CreateRandom(probe.Config, 1, probe.Dtype, quantizer is null ? null : quantizer.Store);
    AllocatorTuning.Release();
    memory.TakePeak();
    Note("model");
    using var peft = model.GetPeftModel(probe.Lora);
    Note("adapter");
    using (var trainer = new LLaVATrainer(peft, new ProbeData(probe), probe.OptionsFor(folder), new Watcher(memory, Note))) trainer.Train();
    long peak = Watcher.Peak;
    var estimate = probe.Config.EstimateMemory(probe.OptionsFor(folder), probe.Assumptions);
    Console.WriteLine(estimate);
    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"measured {peak} estimated {estimate.PeakBytes}"));
}
finally
{
    Directory.Delete(folder, recursive: true);
}

void Note(string what) => Console.WriteLine($"{what,-12} {watched.Last / 1e6,6:F0} MB");

/// <summary>Notes the peak of each step.</summary>
internal sealed class Watcher(ResidentMemory memory, Action<string> note) : ITrainingObserver
{
    public static long Peak { get; private set; }

    public void OnGradients(int step, IReadOnlyList<ParameterGroup> groups) => note($"backward {step}");

    public TrainingVerdict OnStep(StepReport report)
    {
        Peak = Math.Max(Peak, memory.TakePeak());
        note($"step {report.Step}");
        return TrainingVerdict.Continue;
    }
}
