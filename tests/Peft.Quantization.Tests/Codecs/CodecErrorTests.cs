using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class CodecErrorTests
{
    [Fact]
    public void An_unknown_quantisation_type_names_the_known_ones()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<UnsupportedQuantTypeException>(() => new FourBitCodec(new QuantType("nf3")).Encode(randn(3, 5)));
        Assert.Equal("Quantisation type 'nf3' is not known; known are nf4, fp4. Choose one of these, or read the file with the library that wrote it.", e.Message);
    }

    [Fact]
    public void An_unsupported_block_size_names_the_supported_ones()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<UnsupportedBlockSizeException>(() => new FourBitCodec(QuantType.Nf4, 48).Encode(randn(3, 5)));
        Assert.Equal("4-bit quantisation has no block size 48; it has 32, 64, 128, 256, 512, 1024, 2048, 4096. "
            + "bitsandbytes' default is 64 for 4-bit weights and 256 for statistics and optimizer states.", e.Message);
        var eight = Assert.Throws<UnsupportedBlockSizeException>(() => new BlockwiseCodec(EightBitMap.DynamicSigned, 100).Encode(randn(3, 5)));
        Assert.StartsWith("8-bit block-wise quantisation has no block size 100; it has 64, 128", eight.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_dtype_that_cannot_be_quantised_is_refused()
    {
        using var scope = NewDisposeScope();
        const string text = "dtype Float64 cannot be quantised from or computed in; use Float32, BFloat16 or Float16 (cast with .to(dtype) first).";
        Assert.Equal(text, Assert.Throws<UnsupportedWeightDtypeException>(() => new FourBitCodec(QuantType.Nf4).Encode(randn(3, 5, ScalarType.Float64))).Message);
        Assert.Equal(text, Assert.Throws<UnsupportedWeightDtypeException>(() => RowwiseInt8Codec.EncodeWeight(randn(3, 5, ScalarType.Float64))).Message);
    }

    [Theory]
    [InlineData(float.NaN, "NaN")]
    [InlineData(float.NegativeInfinity, "-Infinity")]
    public void A_weight_that_is_not_finite_is_refused_with_its_place(float value, string text)
    {
        using var scope = NewDisposeScope();
        var weight = randn(7, 11);
        weight[3, 4] = value;
        string expected = $"model.layers.0.q_proj (7, 11) holds {text} at flat index 37; quantising would spoil the whole block or row. "
            + "The checkpoint is damaged, or its dtype overflowed (fp16 ends at 65504): load it in another dtype or repair the file.";
        Assert.Equal(expected, Assert.Throws<NonFiniteWeightException>(() => new FourBitCodec(QuantType.Nf4).Encode(weight, "model.layers.0.q_proj")).Message);
        Assert.Equal(expected, Assert.Throws<NonFiniteWeightException>(() => RowwiseInt8Codec.EncodeWeight(weight, "model.layers.0.q_proj")).Message);
    }

    [Fact]
    public void Int8_refuses_what_overflows_fp16()
    {
        using var scope = NewDisposeScope();
        var weight = randn(7, 11);
        weight[0, 5] = 70000;
        var e = Assert.Throws<NonFiniteWeightException>(() => RowwiseInt8Codec.EncodeWeight(weight));
        Assert.StartsWith("weight (7, 11) holds 70000 at flat index 5;", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_truncated_state_says_what_is_short()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<QuantStateException>(() => new PackedWeight(
            zeros([40, 1], ScalarType.Byte), zeros([1]), null, 0, QuantType.Nf4, 64, ScalarType.BFloat16, [8, 10], "q_proj"));
        Assert.Equal("q_proj: absmax has 1 entries, expected 2: it is truncated or belongs to another weight. "
            + "Take the file again from where it came, or quantise the original weight anew.", e.Message);
        e = Assert.Throws<QuantStateException>(() => new PackedWeight(
            zeros([39, 1], ScalarType.Byte), zeros([2]), null, 0, QuantType.Nf4, 64, ScalarType.BFloat16, [8, 10], "q_proj"));
        Assert.StartsWith("q_proj: codes has 39 entries, expected 40:", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<QuantStateException>(() => new PackedWeight(
            zeros([40, 1], ScalarType.Byte), zeros([2]), zeros([1]), 0, QuantType.Nf4, 64, ScalarType.BFloat16, [8, 10], "q_proj"));
        Assert.StartsWith("q_proj: absmax is Float32, expected Byte.", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<QuantStateException>(() => new BlockwiseCodec(EightBitMap.DynamicSigned).Decode(zeros([300], ScalarType.Byte), zeros([1]), ScalarType.Float32));
        Assert.StartsWith("8-bit codes: absmax has 1 entries, expected 2 for 300 codes in blocks of 256.", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<QuantStateException>(() => RowwiseInt8Codec.Decode(zeros([3, 4], ScalarType.Int8), zeros([4]), ScalarType.Float32));
        Assert.StartsWith("int8 codes: SCB has 4 entries for codes of shape (3, 4); there is one per row.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_wrong_map_is_refused()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<QuantMapException>(() => EightBitMap.DynamicSigned.RequireEqual(EightBitMap.DynamicUnsigned.ToTensor(), "q_proj.weight.nested_quant_map"));
        Assert.Equal("q_proj.weight.nested_quant_map: the map (256) is not bitsandbytes' dynamic signed map. "
            + "The codes were made with another map; convert the file with the library that wrote it.", e.Message);
        e = Assert.Throws<QuantMapException>(() => new EightBitMap("mine", new float[17]));
        Assert.Equal("Map 'mine' has 17 entries; an 8-bit map has 256.", e.Message);
        var values = EightBitMap.LinearSigned.Values.ToArray();
        (values[4], values[5]) = (values[5], values[4]);
        e = Assert.Throws<QuantMapException>(() => new EightBitMap("mine", values));
        Assert.StartsWith("Map 'mine' is not ascending at entry 5:", e.Message, StringComparison.Ordinal);
    }
}
