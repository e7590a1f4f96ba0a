using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>A packed weight counts with its values, as in PEFT's sentence.</summary>
[Trait("Fault", "lora-10")]
public sealed class PackedReportTests
{
    [Theory]
    [InlineData("nf4")]
    [InlineData("int8")]
    public void A_packed_base_is_counted(string storage)
    {
        using var scope = NewDisposeScope();
        using var weight = randn(256, 256);
        FrozenLinear layer = storage == "nf4" ? FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4), weight) : Int8Linear.Quantize(weight);
        long bytes = layer.StoredBytes;
        using var one = new OneLayer(layer);
        using var peft = one.GetPeftModel(new LoraConfig { Rank = 8, Alpha = 3, TargetModules = ["fc"] });
        var report = peft.Report();
        Assert.Equal((4096, 69_632), (report.Trainable, report.Total));
        Assert.StartsWith("trainable params: 4,096 || all params: 69,632 || trainable%: 5.8824\nbase fc: 0 trained, 65,536 frozen, ", report.ToString(), StringComparison.Ordinal);
        Assert.Equal(bytes + 4096 * 4, report.Bytes);
    }

    [Fact]
    public void A_packed_layer_without_an_adapter_is_counted_too()
    {
        using var scope = NewDisposeScope();
        using var weight = randn(256, 256);
        using var net = nn.Sequential(("packed", FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4), weight)), ("lin", nn.Linear(256, 3)));
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["lin"] });
        Assert.Equal(65_536 + 256 * 3 + 3 + 2 * 259, peft.Report().Total);
    }

    [Fact, Trait("Fault", "lora-7")]
    public void A_packed_layer_cannot_be_trained_in_full()
    {
        using var scope = NewDisposeScope();
        using var weight = randn(64, 64);
        using var net = nn.Sequential(("packed", FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4), weight)), ("lin", nn.Linear(64, 3)));
        Assert.Equal("packed: the weight of FourBitLinear is stored packed and cannot be trained in full; load this part unquantised.",
            Assert.Throws<UnsupportedTargetException>(() => net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["lin"], ModulesToSave = ["packed"] })).Message);
    }
}
