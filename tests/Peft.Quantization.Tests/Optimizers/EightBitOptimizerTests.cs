using CsCheck;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class EightBitOptimizerTests
{
    private static readonly Func<Parameter[], EightBitOptimizer>[] Kinds =
    [
        p => new AdamW8bit(p, 3e-3, 0.05, 0.85, 0.97, 1e-6, minEightBitSize: 700),
        p => new Lion8bit(p, 3e-4, 0.05, minEightBitSize: 700),
        p => new Sgd8bit(p, 3e-2, 0.85, 0.05, minEightBitSize: 700),
    ];

    [Fact]
    public void Every_kernel_level_does_what_the_plain_tensors_do() => Gen.Select(Gen.Int[1, 1500], Gen.Int[0, 2], Gen.Int[0, 1 << 20]).Sample(c =>
    {
        using var scope = NewDisposeScope();
        var (count, kind, seed) = c;
        var dtype = (seed % 3) switch { 0 => ScalarType.Float32, 1 => ScalarType.BFloat16, _ => ScalarType.Float16 };
        Tensor[] Run(KernelLevel level)
        {
            using var forced = KernelSelection.Force(level);
            var parameter = Random(count, seed, dtype);
            using var optimizer = Kinds[kind]([parameter]);
            optimizer.GradientScale = 0.7;
            for (int step = 0; step < 3; step++)
            {
                parameter.grad = randn([count], generator: new Generator((ulong)(seed + step))).to(dtype);
                optimizer.step();
            }
            return [parameter, .. optimizer.StateDict()[0].Tensors.OrderBy(t => t.Key).Select(t => t.Value)];
        }
        var expected = Run(KernelLevel.Reference);
        foreach (var level in KernelSelection.Supported)
        {
            var got = Run(level);
            for (int i = 0; i < got.Length; i++)
            {
                // A multiply-add that libtorch fuses may round the other way and move a code to its neighbour.
                if (got[i].dtype == ScalarType.Byte)
                    Assert.True((got[i].to(ScalarType.Int32) - expected[i].to(ScalarType.Int32)).abs().sum().ToInt64() <= 1 + count / 300, $"{level} {i}");
                else TensorAssert.Close(expected[i], got[i], dtype == ScalarType.Float32 ? 2e-6 : 1e-2, dtype == ScalarType.Float32 ? 1e-4 : 1e-2, $"{level} {i}");
            }
        }
    }, iter: 30, threads: 1);

    [Fact]
    public void A_saved_state_goes_on_bit_for_bit()
    {
        using var scope = NewDisposeScope();
        string file = Path.Combine(Directory.CreateTempSubdirectory().FullName, "optimizer.safetensors");
        var straight = Random(5000, 1, ScalarType.Float32);
        var small = Random(300, 2, ScalarType.Float32);
        using var optimizer = new AdamW8bit([straight, small], 1e-2);
        Train(optimizer, 3, 0);
        SafetensorsWriter.Write(file, EightBitParameterState.ToTensors(optimizer.StateDict()));
        var copy = new Parameter(straight.detach().clone());
        var smallCopy = new Parameter(small.detach().clone());
        Train(optimizer, 4, 3);

        using var resumed = new AdamW8bit([copy, smallCopy], 1e-2);
        using (var reader = SafetensorsReader.Open(file)) resumed.LoadStateDict(EightBitParameterState.FromReader(reader));
        Train(resumed, 4, 3);
        TensorAssert.Equal(straight, copy, "large");
        TensorAssert.Equal(small, smallCopy, "small");
        Assert.Equal(7, resumed.StateDict()[0].Step);
    }

    [Fact]
    public void States_in_a_file_give_the_same_and_the_file_goes_with_the_optimizer()
    {
        using var scope = NewDisposeScope();
        string file = Path.Combine(Directory.CreateTempSubdirectory().FullName, "states.bin");
        Parameter[] inMemory = [Random(5000, 1, ScalarType.Float32), Random(300, 2, ScalarType.Float32)];
        Parameter[] inFile = [Random(5000, 1, ScalarType.Float32), Random(300, 2, ScalarType.Float32)];
        using var one = new AdamW8bit(inMemory);
        using (var other = new AdamW8bit(inFile, stateFile: file))
        {
            Train(one, 4, 0);
            Train(other, 4, 0);
            Assert.True(File.Exists(file));
            other.LoadStateDict(one.StateDict());
            Train(one, 1, 4);
            Train(other, 1, 4);
        }
        Assert.False(File.Exists(file));
        for (int i = 0; i < 2; i++) TensorAssert.Equal(inMemory[i], inFile[i], "parameter");
    }

    [Fact]
    public void TorchSharp_s_schedulers_drive_it_and_the_closure_s_loss_comes_back()
    {
        using var scope = NewDisposeScope();
        var parameter = Random(4100, 1, ScalarType.Float32);
        using var optimizer = new AdamW8bit([parameter], 0.1);
        var schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.5);
        var loss = optimizer.step(() =>
        {
            optimizer.zero_grad();
            var sum = parameter.square().sum();
            sum.backward();
            return sum;
        });
        Assert.True(loss.ToDouble() > 0);
        schedule.step();
        Assert.Equal(0.05, optimizer.Groups[0].LearningRate, 12);
        Assert.Same(parameter, optimizer.parameters().Single());
        optimizer.zero_grad();
        Assert.Null(parameter.grad);
    }

    [Fact]
    public void A_quarter_of_the_bytes_and_no_tensor_left_behind()
    {
        using var scope = NewDisposeScope();
        var parameter = Random(65536, 1, ScalarType.Float32);
        using var optimizer = new AdamW8bit([parameter]);
        LeakGuard.AssertFlat(10, () => Train(optimizer, 1, 0));
        Assert.Equal(2 * (65536 + 256 * 4), optimizer.StateBytesHeld);
    }

    [Fact]
    public void A_state_that_does_not_fit_changes_nothing()
    {
        using var scope = NewDisposeScope();
        using var optimizer = new AdamW8bit([Random(5000, 1, ScalarType.Float32)]);
        Train(optimizer, 1, 0);
        var state = optimizer.StateDict()[0];
        var e = Assert.Throws<QuantStateException>(() => optimizer.LoadStateDict([state with { Index = 3 }]));
        Assert.Equal("optimizer state 3: there are 1 parameters; the state was saved for other ones. Load the state that was saved with these parameters, or go on without one: the moments then start anew.", e.Message);
        Assert.Equal("optimizer state 3", e.Name);
        e = Assert.Throws<QuantStateException>(() => optimizer.LoadStateDict([state with { Tensors = state.Tensors.Where(t => t.Key != "state2").ToDictionary() }]));
        Assert.StartsWith("optimizer state 0: state2 is missing.", e.Message, StringComparison.Ordinal);
        var broken = state.Tensors.ToDictionary();
        broken["absmax2"] = zeros(3);
        e = Assert.Throws<QuantStateException>(() => optimizer.LoadStateDict([state with { Tensors = broken }]));
        Assert.StartsWith("optimizer state 0: absmax2 has 3 entries, expected 20.", e.Message, StringComparison.Ordinal);
        broken = state.Tensors.ToDictionary();
        broken["qmap2"] = EightBitMap.DynamicSigned.ToTensor();
        var map = Assert.Throws<QuantMapException>(() => optimizer.LoadStateDict([state with { Tensors = broken }]));
        Assert.StartsWith("optimizer state 0.qmap2: the map (256) is not bitsandbytes' dynamic unsigned map.", map.Message, StringComparison.Ordinal);
        Assert.Equal(1, optimizer.StateDict()[0].Step);
    }

    [Fact]
    public void A_file_without_a_step_count_is_refused()
    {
        using var scope = NewDisposeScope();
        string file = Path.Combine(Directory.CreateTempSubdirectory().FullName, "optimizer.safetensors");
        SafetensorsWriter.Write(file, [new NamedTensor($"state.0.{EightBitOptimizer.NestedName}.state1", zeros(3))]);
        using var reader = SafetensorsReader.Open(file);
        var e = Assert.Throws<QuantStateException>(() => EightBitParameterState.FromReader(reader));
        Assert.StartsWith($"optimizer state 0: state.0.step is missing from {file}.", e.Message, StringComparison.Ordinal);
    }

    private static Parameter Random(int count, int seed, ScalarType dtype)
        => new((randn([count], generator: new Generator((ulong)seed)) * 0.5f).to(dtype));

    private static void Train(EightBitOptimizer optimizer, int steps, int first)
    {
        for (int step = first; step < first + steps; step++)
        {
            using var scope = NewDisposeScope();
            using var generator = new Generator((ulong)step);
            foreach (var parameter in optimizer.parameters()) parameter.grad = randn(parameter.shape, generator: generator);
            optimizer.step();
            optimizer.zero_grad();
        }
    }
}
