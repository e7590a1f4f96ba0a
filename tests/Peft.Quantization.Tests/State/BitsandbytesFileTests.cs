using System.Text;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>The checkpoints that bitsandbytes wrote: layer by layer, read, decoded, made again from the base, and written byte for byte.</summary>
[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class BitsandbytesFileTests
{
    public static IEnumerable<TheoryDataRow<string>> Checkpoints() => QuantGolden.Rows("checkpoint");

    [Theory, MemberData(nameof(Checkpoints))]
    public void Checkpoint_layers(string folder)
    {
        using var golden = new QuantGolden(folder);
        using var scope = NewDisposeScope();
        var config = golden.Settings.GetProperty("quantization_config");
        using var quantized = golden.Case.Tensors("quantized/model.safetensors");
        using var @base = golden.Case.Tensors(golden.String("base") + "/model.safetensors");
        using var dequantized = golden.Case.Tensors("dequantized.safetensors");
        var loadDtype = QuantGolden.Dtype(golden.String("load_dtype"));
        bool fourBit = config.TryGetProperty("load_in_4bit", out _);
        var written = new List<NamedTensor>();
        var modules = quantized.Entries.Keys.Where(k => BitsandbytesKeys.IsStatistic(k, out _))
            .Select(k => BitsandbytesKeys.IsStatistic(k, out string m) ? m : m).Distinct().ToList();
        Assert.Equal(golden.Case.Json.GetProperty("quantized_modules").GetArrayLength(), modules.Count);

        foreach (string module in modules)
        {
            Assert.Equal(fourBit ? StoredForm.FourBit : StoredForm.Int8, BitsandbytesKeys.FormOf(quantized, module));
            using var read = Read(quantized, module, fourBit);
            var weight = @base.Load(module + ".weight").to(loadDtype);
            using FrozenLinear made = fourBit
                ? FourBitLinear.Quantize(new FourBitCodec(((FourBitLinear)read).QuantType, ((FourBitLinear)read).BlockSize, ((FourBitLinear)read).DoubleQuantized), weight)
                : Int8Linear.Quantize(weight);
            var stored = BitsandbytesKeys.Write(module, read);
            foreach (var (name, value, _) in BitsandbytesKeys.Write(module, made).Concat(stored))
            {
                using var recorded = quantized.Load(name);
                golden.Check("quantized/" + name, recorded, value, golden.Rule("quantized/" + name));
            }
            written.AddRange(stored);
            if (dequantized.Entries.ContainsKey(Renamed(golden, module) + ".weight"))
                golden.Check("dequantized/" + module, dequantized.Load(Renamed(golden, module) + ".weight"), read.MaterializeWeight(loadDtype), golden.Rule("dequantized/x"));
        }

        // With the tensors that were left alone, the whole file comes back byte for byte.
        var names = written.Select(t => t.Name).ToHashSet();
        written.AddRange(quantized.Entries.Keys.Where(k => !names.Contains(k)).Select(k => new NamedTensor(k, quantized.Load(k))));
        string file = Path.Combine(Directory.CreateTempSubdirectory().FullName, "model.safetensors");
        SafetensorsWriter.Write(file, written, SafetensorsWriter.PyTorchMetadata);
        Assert.True(File.ReadAllBytes(golden.Case.PathOf("quantized/model.safetensors")).AsSpan().SequenceEqual(File.ReadAllBytes(file)), "The file differs.");
    }

    private static FrozenLinear Read(ITensorReader reader, string module, bool fourBit)
    {
        var bias = reader.Entries.ContainsKey(module + ".bias") ? reader.Load(module + ".bias") : null;
        if (fourBit) return new FourBitLinear(BitsandbytesKeys.ReadFourBit(reader, module), bias);
        var (codes, absmax) = BitsandbytesKeys.ReadInt8(reader, module);
        return new Int8Linear(codes, absmax, bias);
    }

    /// <summary>dequantized.safetensors has the names of the module tree, the checkpoint its own (see the area's README).</summary>
    private static string Renamed(QuantGolden golden, string module)
        => golden.Case.Json.GetProperty("quantized_modules").EnumerateArray().Select(e => e.GetString()!)
            .Single(tree => Tail(tree) == Tail(module));

    private static string Tail(string module)
        => (module.Contains("vision_tower", StringComparison.Ordinal) ? "v." : "") + string.Join('.', module.Split('.')
            .Where(part => part is not ("model" or "language_model" or "vision_tower" or "vision_model")));

    [Theory]
    [InlineData(0.2030131071805954f, "0.2030131071805954")]
    [InlineData(1e-5f, "9.999999747378752e-06")]
    [InlineData(0.000244140625f, "0.000244140625")]
    [InlineData(0.5f, "0.5")]
    [InlineData(2f, "2.0")]
    [InlineData(-3e-20f, "-2.9999999047965676e-20")]
    [InlineData(1e20f, "1.0000000200408773e+20")]
    [InlineData(2e15f, "1999999973982208.0")]
    public void Offsets_are_written_as_Python_writes_floats(float offset, string text)
    {
        using var scope = NewDisposeScope();
        using var layer = new FourBitLinear(new PackedWeight(
            zeros([3, 1], ScalarType.Byte), zeros([1], ScalarType.Byte), ones([1]), offset, QuantType.Nf4, 64, ScalarType.BFloat16, [2, 3]));
        var state = BitsandbytesKeys.Write("fc", layer).Single(t => t.Name == "fc.weight.quant_state.bitsandbytes__nf4");
        Assert.Equal("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [2, 3], \"nested_blocksize\": 256, "
            + $"\"nested_dtype\": \"float32\", \"nested_offset\": {text}}}", Encoding.UTF8.GetString(state.Value.bytes));
    }
}
