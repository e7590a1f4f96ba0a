using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>
/// What adapters cost: LoRA over a 4096x4096 bf16 layer against the bare products, switching adapters over 224 layers, a batch that mixes three.
/// </summary>
internal static class AdapterCostScenario
{
    private const int Width = 4096, Rank = 128, Tokens = 1300;

    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(int repeats) => [.. Layer(repeats), Switching(repeats), .. Mixed(repeats)];

    private static IEnumerable<ResultRow> Layer(int repeats)
    {
        using var scope = NewDisposeScope();
        using var net = new Stack(1, Width, ScalarType.BFloat16);
        var x = randn(Tokens, Width).to(ScalarType.BFloat16).requires_grad_(true);
        var g = randn(Tokens, Width).to(ScalarType.BFloat16);
        double bare = Seconds(repeats, () => Pass(net, x, g));
        using var peft = net.GetPeftModel(new LoraConfig { Rank = Rank, Alpha = 256, TargetModules = TargetModules.AllLinear });
        peft.Precision = AdapterPrecision.BaseDtype;
        double lora = Seconds(repeats, () => Pass(net, x, g));
        // Frozen: forward and input gradient. Adapter: forward, input gradient, weight gradients.
        double frozen = 4.0 * Tokens * Width * Width, adapter = 6.0 * Tokens * Rank * 2 * Width;
        yield return Row("bare layer", bare, frozen / bare / 1e9, "GFLOP/s", "forward and input gradient");
        yield return Row("layer with LoRA", lora, lora / (bare * (frozen + adapter) / frozen), "ratio", "to the bare time scaled by FLOPs; the bar is 1.25");
    }

    private static ResultRow Switching(int repeats)
    {
        using var net = new Stack(224, 64, ScalarType.Float32);
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 8, Alpha = 20, TargetModules = TargetModules.AllLinear }, "first");
        peft.AddAdapter("second", new LoraConfig { Rank = 4, Alpha = 6, TargetModules = TargetModules.AllLinear });
        bool second = false;
        double seconds = Seconds(repeats * 10, () => peft.SetActive((second = !second) ? "second" : "first"));
        return Row("switch of 224 layers", seconds, 1 / seconds, "switches/s", "the bar is 1 ms");
    }

    private static IEnumerable<ResultRow> Mixed(int repeats)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var net = new Stack(4, 1024, ScalarType.BFloat16);
        var config = new LoraConfig { Rank = 32, Alpha = 64, TargetModules = TargetModules.AllLinear };
        using var peft = net.GetPeftModel(config, "a");
        peft.AddAdapter("b", config);
        peft.AddAdapter("c", config);
        peft.Precision = AdapterPrecision.BaseDtype;
        net.eval();
        var x = randn(6, 200, 1024).to(ScalarType.BFloat16);
        double single = Seconds(repeats, () => net.call(x));
        using var mixed = peft.WithAdaptersBySample(["a", "a", "b", "b", "c", "c"]);
        double seconds = Seconds(repeats, () => net.call(x));
        yield return Row("one adapter", single, 1 / single, "batches/s", "6 samples of 200 tokens");
        yield return Row("three adapters in a batch", seconds, seconds / single, "ratio", "to one adapter; the bar is 1.3");
    }

    private static void Pass(Stack net, Tensor x, Tensor gradient)
    {
        net.call(x).backward([gradient]);
        x.grad = null;
    }

    private static double Seconds(int repeats, Action work)
    {
        var seconds = new List<double>();
        for (int i = 0; i < 3 + repeats * 3; i++)
        {
            using var scope = NewDisposeScope();
            double start = Clock.Now();
            work();
            if (i >= 3) seconds.Add(Clock.Now() - start);
        }
        return TrainingScenario.Median(seconds);
    }

    private static ResultRow Row(string variant, double seconds, double rate, string unit, string note)
        => new(variant, seconds, seconds, rate, unit, null, ProcessMemory.PeakMegabytes, note);

    private sealed class Stack : nn.Module<Tensor, Tensor>
    {
        private readonly TorchSharp.Modules.ModuleList<nn.Module<Tensor, Tensor>> _layers;

        public Stack(int count, int width, ScalarType dtype)
            : base(nameof(Stack))
        {
            _layers = new([.. Enumerable.Range(0, count).Select(_ => new DenseFrozenLinear(randn(width, width).mul_(0.02).to(dtype)))]);
            RegisterComponents();
        }

        public override Tensor forward(Tensor input)
        {
            using var scope = NewDisposeScope();
            var x = input;
            foreach (var layer in _layers) x = layer.call(x);
            return x.MoveToOuterDisposeScope();
        }
    }
}
