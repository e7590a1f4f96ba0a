using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class LoftqQuantizerTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("peft", c => c.Kind == "init" && c.Json.GetProperty("method").GetString() == "loftq");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "peft")]
    public void A_new_adapter_starts_as_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var scope = NewDisposeScope();
        using var one = Testing.OneLayer.Of(golden);
        using var peft = one.GetPeftModel(Testing.OneLayer.ConfigOf(golden), options: new AdapterOptions { Loftq = new LoftqQuantizer() });
        Testing.OneLayer.Compare(golden, peft);
    }

    [Fact]
    public void Unloading_gives_the_unquantised_weight_back()
    {
        using var scope = NewDisposeScope();
        var weight = randn(8, 64);
        using var one = new Testing.OneLayer(new DenseFrozenLinear(weight.clone()));
        var x = randn(2, 64);
        var before = one.Run(x);
        using (one.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 2, TargetModules = ["lin"], Init = LoraInit.Loftq }, options: new AdapterOptions { Loftq = new LoftqQuantizer() }))
            Assert.True((one.Run(x) - before).abs().max().ToDouble() > 1e-3);
        TensorAssert.Equal(before, one.Run(x), "output");
    }

    [Fact]
    public void Bits_that_are_not_there_are_said()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<QuantizationConfigException>(() => new LoftqQuantizer().Approximate(randn(2, 64), 2));
        Assert.Equal("loftq_config: loftq_bits is 2, and only 4 (NF4) is there. Correct the quantisation settings.", e.Message);
    }
}
