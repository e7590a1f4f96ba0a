using Peft.Llava;
using Peft.Quantization;
using AdamW = Peft.Llava.AdamW;
using Parameter = TorchSharp.Modules.Parameter;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>Optimizer steps over the adapters' tensors of a size: 4096x128 each.</summary>
internal static class OptimizerScenario
{
    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(BenchmarkSize size, int repeats)
    {
        return
        [
            Measure("adamw fp32", ScalarType.Float32, size, repeats, p => Wrap(new AdamW(Groups(p)))),
            Measure("adamw bf16", ScalarType.BFloat16, size, repeats, p => Wrap(new AdamW(Groups(p)))),
            Measure("adamw8bit fp32", ScalarType.Float32, size, repeats, p =>
            {
                var optimizer = new AdamW8bit(p, 2e-4);
                return (() => optimizer.step(), optimizer);
            }),
        ];
    }

    private static (Action Step, IDisposable Owner) Wrap(AdamW optimizer) => (() => optimizer.Step(), optimizer);

    private static IReadOnlyList<ParameterGroup> Groups(IReadOnlyList<Parameter> parameters)
        => ParameterGroups.Build(parameters.Select((p, i) => new NamedParameter($"lora_{i}", p)), _ => false, 2e-4, null, 0);

    private static ResultRow Measure(
        string variant, ScalarType dtype, BenchmarkSize size, int repeats, Func<IReadOnlyList<Parameter>, (Action Step, IDisposable Owner)> make)
    {
        using var scope = NewDisposeScope();
        bool reset = ProcessMemory.ResetPeak();
        var parameters = Enumerable.Range(0, size.OptimizerTensors).Select(_ => new Parameter(randn(4096, 128).mul_(0.02).to(dtype))).ToList();
        foreach (var parameter in parameters) parameter.grad = randn(4096, 128).mul_(0.01).to(dtype);
        var (step, owner) = make(parameters);
        using (owner)
        {
            var seconds = new List<double>();
            for (int i = 0; i <= repeats * 3; i++)
            {
                double start = Clock.Now();
                step();
                if (i > 0) seconds.Add(Clock.Now() - start);
            }
            double count = parameters.Sum(p => p.numel());
            return new ResultRow(variant, TrainingScenario.Median(seconds), seconds.Min(), count / 1e6 / TrainingScenario.Median(seconds), "M params/s", null,
                ProcessMemory.PeakMegabytes, $"{count / 1e6:F1} M parameters; peak reset {reset}");
        }
    }
}
