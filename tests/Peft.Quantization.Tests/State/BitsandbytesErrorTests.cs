using System.Text;
using Peft.Core;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class BitsandbytesErrorTests : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _file = Path.Combine(Directory.CreateTempSubdirectory().FullName, "model.safetensors");

    [Theory]
    [InlineData("fc.weight.quant_state.bitsandbytes__nf4", "fc.weight.quant_state.bitsandbytes__<type>")]
    [InlineData("fc.weight.absmax", "fc.weight.absmax")]
    [InlineData("fc.weight.nested_absmax", "fc.weight.nested_absmax")]
    [InlineData("fc.weight", "fc.weight")]
    public void A_missing_part_is_named(string part, string named)
    {
        using var reader = Write(tensors => tensors.Remove(part));
        var e = Assert.Throws<QuantStateException>(() => BitsandbytesKeys.ReadFourBit(reader, "fc"));
        Assert.Equal($"fc.weight: {named} is missing from {_file}, so the codes cannot be read. "
            + "Take the file again from where it came, or quantise the original weight anew.", e.Message);
    }

    [Fact]
    public void The_shape_of_a_weight_that_is_not_there_is_refused_by_its_name()
    {
        using var reader = Write(tensors => tensors["head.weight"] = zeros(3, 4));
        Assert.Equal([3L, 4], BitsandbytesKeys.ShapeOf(reader, "head"));
        Assert.StartsWith($"{_file} holds no tensor 'hed.weight'. It holds ", Assert.Throws<TensorNotFoundException>(() => BitsandbytesKeys.ShapeOf(reader, "hed")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Statistics_that_are_too_short_are_refused()
    {
        using var reader = Write(tensors => tensors["fc.weight.absmax"] = zeros([2], ScalarType.Byte));
        var e = Assert.Throws<QuantStateException>(() => BitsandbytesKeys.ReadFourBit(reader, "fc"));
        Assert.StartsWith("fc.weight: absmax has 2 entries, expected 10: it is truncated or belongs to another weight.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Another_table_is_refused()
    {
        using var reader = Write(tensors => tensors["fc.weight.quant_map"] = tensor(FourBitTable.For(QuantType.Fp4).Codes.ToArray()));
        var e = Assert.Throws<QuantMapException>(() => BitsandbytesKeys.ReadFourBit(reader, "fc"));
        Assert.Equal("fc.weight.quant_map: the table (16) is not bitsandbytes' nf4 table. "
            + "The codes were made with another table; convert the file with the library that wrote it.", e.Message);
    }

    [Theory]
    [InlineData("{\"quant_type\": \"nf4\"", "its quant_state is not bitsandbytes' JSON (")]
    [InlineData("{\"quant_type\": \"nf4\", \"blocksize\": 64}", "its quant_state is not bitsandbytes' JSON (")]
    [InlineData("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int4\", \"shape\": [9, 70]}", "its dtype 'int4' is not one of float32, bfloat16, float16.")]
    [InlineData("{\"quant_type\": \"fp4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [9, 70]}", "its quant_state is of type 'fp4' but is called fc.weight.quant_state.bitsandbytes__nf4.")]
    [InlineData("{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [9, 70], \"nested_blocksize\": 128, \"nested_offset\": 0.1}", "its statistics are in blocks of 128, expected 256.")]
    public void A_quant_state_that_cannot_be_read_is_refused(string json, string problem)
    {
        using var reader = Write(tensors => tensors["fc.weight.quant_state.bitsandbytes__nf4"] = tensor(Encoding.UTF8.GetBytes(json)));
        var e = Assert.Throws<QuantStateException>(() => BitsandbytesKeys.ReadFourBit(reader, "fc"));
        Assert.StartsWith("fc.weight: " + problem, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Int8_without_its_maxima_or_in_a_tiling_is_refused()
    {
        var tensors = new Dictionary<string, Tensor> { ["fc.weight"] = zeros([3, 4], ScalarType.Int8), ["fc.weight_format"] = tensor((byte)2) };
        SafetensorsWriter.Write(_file, tensors);
        using (var reader = SafetensorsReader.Open(_file))
        {
            Assert.Equal(StoredForm.Int8, BitsandbytesKeys.FormOf(reader, "fc"));
            var e = Assert.Throws<QuantStateException>(() => BitsandbytesKeys.ReadInt8(reader, "fc"));
            Assert.StartsWith("fc.weight: weight_format is 2; only row by row (0) is known", e.Message, StringComparison.Ordinal);
        }
        tensors.Remove("fc.weight_format");
        SafetensorsWriter.Write(_file, tensors);
        using var again = SafetensorsReader.Open(_file);
        var missing = Assert.Throws<QuantStateException>(() => BitsandbytesKeys.ReadInt8(again, "fc"));
        Assert.StartsWith($"fc.weight: fc.SCB is missing from {_file}, so the codes cannot be read.", missing.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_layer_that_is_not_quantised_is_no_bitsandbytes_layer()
    {
        using var layer = new DenseFrozenLinear(randn(3, 4));
        var e = Assert.Throws<ArgumentException>(() => BitsandbytesKeys.Write("fc", layer));
        Assert.StartsWith("DenseFrozenLinear is not stored as bitsandbytes does; write it as a plain tensor.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Codes_stored_as_another_dtype_are_the_same_bytes()
    {
        using var layer = FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4, 64, true), randn(8, 70));
        var tensors = BitsandbytesKeys.Write("fc", layer).ToDictionary(t => t.Name, t => t.Value);
        byte[] bytes = tensors["fc.weight"].bytes.ToArray();
        var viewed = empty([bytes.Length / 2, 1], ScalarType.BFloat16);
        bytes.CopyTo(viewed.bytes);
        tensors["fc.weight"] = viewed;
        SafetensorsWriter.Write(_file, tensors);
        using var reader = SafetensorsReader.Open(_file);
        using var packed = BitsandbytesKeys.ReadFourBit(reader, "fc");
        Assert.True(packed.Codes.bytes.SequenceEqual(bytes));
    }

    public void Dispose() => _scope.Dispose();

    private SafetensorsReader Write(Action<Dictionary<string, Tensor>> change)
    {
        using var layer = FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4, 64, true), randn(9, 70));
        var tensors = BitsandbytesKeys.Write("fc", layer).ToDictionary(t => t.Name, t => t.Value);
        change(tensors);
        SafetensorsWriter.Write(_file, tensors);
        return SafetensorsReader.Open(_file);
    }
}
