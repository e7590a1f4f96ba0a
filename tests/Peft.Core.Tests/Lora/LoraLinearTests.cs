using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class LoraLinearTests
{
    private static readonly LoraConfig Config = new() { Rank = 3, Alpha = 5, TargetModules = ["lin"] };

    public static TheoryData<string, bool, bool> Forms => new()
    {
        { "torch", true, false }, { "torch", false, true }, { "dense", true, true }, { "dense", false, false }, { "transposed", true, true }, { "transposed", true, false },
    };

    [Theory, MemberData(nameof(Forms))]
    public void Output_and_all_gradients_are_those_of_the_formula(string storage, bool bias, bool dropout)
    {
        using var scope = NewDisposeScope();
        manual_seed(5);
        var (weight, b) = (randn(6, 7), bias ? randn(6) : null);
        using var one = new OneLayer(Layer(storage, weight, b));
        using var peft = one.GetPeftModel(Config with { Dropout = dropout ? 0.4 : 0, Bias = bias ? LoraBias.LoraOnly : LoraBias.None });
        TinyNet.Randomise(peft);
        var mask = (rand(2, 4, 7).ge(0.4) & dropout) | !dropout;
        peft.Dropout = new FixedMask(mask);
        one.train();
        var adapter = peft.Layers.Single().Adapters["default"];
        var (a, bb) = (adapter.A.detach().clone().requires_grad_(true), adapter.B.detach().clone().requires_grad_(true));
        var own = b?.detach().clone().requires_grad_(true);
        var x = randn(2, 4, 7, requires_grad: true);
        var twin = x.detach().clone().requires_grad_(true);
        var z = dropout ? twin * mask / 0.6 : twin;
        var expected = nn.functional.linear(twin, weight, own) + z.matmul(a.t()).matmul(bb.t()) * (5 / 3.0);
        var got = one.Run(x);
        TensorAssert.Close(expected, got, 1e-5, 0, "output");
        var gradient = randn_like(got);
        expected.backward([gradient]);
        got.backward([gradient]);
        TensorAssert.Close(twin.grad!, x.grad!, 1e-5, 0, "input gradient");
        TensorAssert.Close(a.grad!, adapter.A.grad!, 1e-5, 0, "gradient of A");
        TensorAssert.Close(bb.grad!, adapter.B.grad!, 1e-5, 0, "gradient of B");
        if (bias) TensorAssert.Close(own!.grad!, ((LoraLinear)peft.Layers.Single()).BaseLayer.BiasTensor!.grad!, 1e-5, 0, "bias gradient");
    }

    [Fact]
    public void A_frozen_input_gets_no_gradient_and_the_factors_do()
    {
        using var scope = NewDisposeScope();
        using var one = new OneLayer(nn.Linear(7, 6));
        using var peft = one.GetPeftModel(Config);
        TinyNet.Randomise(peft);
        one.Run(randn(3, 7)).sum().backward();
        Assert.All(peft.TrainableParameters(), p => Assert.NotNull(p.Parameter.grad));
    }

    [Theory]
    [InlineData(AdapterPrecision.Promote)]
    [InlineData(AdapterPrecision.BaseDtype)]
    public void A_half_precision_base_keeps_its_dtype_and_float32_factors_get_float32_gradients(AdapterPrecision precision)
    {
        using var scope = NewDisposeScope();
        manual_seed(6);
        var weight = randn(6, 7).to(ScalarType.BFloat16);
        using var one = new OneLayer(new DenseFrozenLinear(weight.clone()));
        using var peft = one.GetPeftModel(Config);
        peft.Precision = precision;
        TinyNet.Randomise(peft);
        var adapter = peft.Layers.Single().Adapters["default"];
        Assert.Equal(ScalarType.Float32, adapter.A.dtype);
        var x = randn(4, 7).to(ScalarType.BFloat16).requires_grad_(true);
        var y = one.Run(x);
        Assert.Equal(ScalarType.BFloat16, y.dtype);
        y.sum().backward();
        Assert.Equal(ScalarType.Float32, adapter.A.grad!.dtype);
        Assert.Equal(ScalarType.Float32, adapter.B.grad!.dtype);
        Assert.Equal(ScalarType.BFloat16, x.grad!.dtype);
        var wide = x.detach().to(ScalarType.Float32);
        var exact = wide.matmul(weight.to(ScalarType.Float32).t()) + wide.matmul(adapter.A.t()).matmul(adapter.B.t()) * (5 / 3.0);
        TensorAssert.RelativeRms(exact, y.to(ScalarType.Float32), 0.01, "output");
    }

    [Fact]
    public void Training_steps_leave_no_tensor_behind_in_any_form()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config with { Rank = 2, TargetModules = ["first", "blocks.0"], Dropout = 0.2 });
        peft.AddAdapter("dora", Config with { Rank = 2, TargetModules = ["first", "up"], UseDora = true });
        TinyNet.Randomise(peft);
        foreach (string[] active in new[] { new[] { "default" }, ["default", "dora"], ["dora"] })
        {
            peft.SetActive(active);
            LeakGuard.AssertFlat(20, () =>
            {
                using var scope = NewDisposeScope();
                net.zero_grad();
                net.call(randn(3, 7)).square().sum().backward();
            });
        }
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            peft.Merge();
            peft.Unmerge();
        });
    }

    [Fact]
    public void Sizes_of_mixed_batches_are_checked()
    {
        using var scope = NewDisposeScope();
        using var one = new OneLayer(nn.Linear(7, 6));
        using var peft = one.GetPeftModel(Config);
        peft.AddAdapter("dora", Config with { UseDora = true });
        TinyNet.Randomise(peft);
        using (peft.WithAdaptersBySample(["default", "__base__"]))
        {
            Assert.Equal("2 adapter names were given for a batch of 3 rows; give one name for each sample, and the samples' lengths if the batch is packed.",
                Assert.Throws<AdapterStateException>(() => one.Run(randn(3, 7))).Message);
        }
        using (peft.WithAdaptersBySample(["default", "__base__"], [2, 3]))
        {
            Assert.Equal("2 adapter names were given for a batch of 4 rows, but the lengths given add up to 5.",
                Assert.Throws<AdapterStateException>(() => one.Run(randn(4, 7))).Message);
            var x = randn(5, 7);
            var mixed = one.Run(x);
            using (peft.WithAdapters("default")) TensorAssert.Close(one.Run(x.narrow(0, 0, 2)), mixed.narrow(0, 0, 2), 1e-6, 0, "rows of the first sample");
            using (peft.WithoutAdapter()) TensorAssert.Close(one.Run(x.narrow(0, 2, 3)), mixed.narrow(0, 2, 3), 1e-6, 0, "rows of the second sample");
        }
        Assert.Equal("2 adapter names were given, but 1 lengths; give one of each for every sample.",
            Assert.Throws<AdapterStateException>(() => peft.WithAdaptersBySample(["default", "default"], [1])).Message);
        Assert.Equal("Adapter 'dora' uses DoRA, which cannot be mixed by sample; run its samples as a batch of their own.",
            Assert.Throws<AdapterStateException>(() => peft.WithAdaptersBySample(["dora"])).Message);
    }

    [Theory, InlineData("torch"), InlineData("dense"), InlineData("transposed")]
    public void A_base_weight_that_is_trained_as_well_gets_its_gradient(string storage)
    {
        using var scope = NewDisposeScope();
        using var one = new OneLayer(Layer(storage, randn(6, 7), randn(6)));
        using var peft = one.GetPeftModel(Config);
        TinyNet.Randomise(peft);
        var weight = peft.Layers.Single().BaseParameters().First(p => p.Name == "base_layer.weight").Parameter;
        weight.requires_grad = true;
        var (x, gradient) = (randn(3, 7), randn(3, 6));
        one.Run(x).backward([gradient]);
        TensorAssert.Close(storage == "transposed" ? x.t().matmul(gradient) : gradient.t().matmul(x), weight.grad!, 1e-5, 1e-5, "gradient of the base weight");
        Assert.True(peft.Layers.Single().Adapters["default"].B.grad!.abs().max().ToDouble() > 0);
    }

    [Fact]
    public void Mixed_batches_can_be_trained()
    {
        using var scope = NewDisposeScope();
        using var one = new OneLayer(nn.Linear(7, 6));
        using var peft = one.GetPeftModel(Config);
        peft.AddAdapter("b", Config);
        peft.SetActive("default", "b");
        TinyNet.Randomise(peft);
        var x = randn(3, 7);
        using (peft.WithAdaptersBySample(["b", "default", "b"])) one.Run(x).sum().backward();
        var mixed = peft.Layers.Single().Adapters["default"].B.grad!.clone();
        peft.Layers.Single().Adapters["default"].B.grad = null;
        using (peft.WithAdapters("default")) one.Run(x.narrow(0, 1, 1)).sum().backward();
        TensorAssert.Close(peft.Layers.Single().Adapters["default"].B.grad!, mixed, 1e-6, 0, "gradient of B");
    }

    [Fact]
    public void A_broken_adapter_is_not_merged_and_nothing_changes()
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config with { Rank = 2, TargetModules = ["first", "down"] });
        TinyNet.Randomise(peft);
        var x = randn(2, 7);
        var before = net.call(x);
        var b = peft.LayerAt("tail.down")!.Adapters["default"].B;
        using (no_grad()) b[0, 0] = float.NaN;
        Assert.Equal("Merge: 1 tensor(s) hold NaN or infinity: tail.down of adapter 'default'. The adapter is broken; use an earlier checkpoint.",
            Assert.Throws<NonFiniteWeightsException>(() => peft.Merge()).Message);
        using (no_grad())
        {
            b.fill_(3e38f);                                   // finite itself, but not once it is multiplied
            peft.LayerAt("tail.down")!.Adapters["default"].A.fill_(10);
        }
        Assert.Equal("Merge: 1 tensor(s) hold NaN or infinity: tail.down. The adapter is broken; use an earlier checkpoint.",
            Assert.Throws<NonFiniteWeightsException>(() => peft.Merge()).Message);
        Assert.Empty(peft.MergedAdapters);
        using (no_grad()) b.fill_(0);
        using (peft.WithoutAdapter()) TensorAssert.Close(before, before, 0, 0, "output");
    }

    [Fact]
    public void A_bias_of_B_cannot_be_merged_where_the_base_has_none()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config with { Rank = 2, TargetModules = ["blocks.1"], LoraBOwnBias = true });
        Assert.Equal("Adapter 'default' has a bias of its own at blocks.1 (lora_bias), and the base layer has none to add it to; use the adapter unmerged.",
            Assert.Throws<AdapterStateException>(() => peft.Merge()).Message);
    }

    [Fact]
    public void The_report_of_a_merge_tells_what_rounding_lost()
    {
        using var scope = NewDisposeScope();
        manual_seed(8);
        using var one = new OneLayer(new DenseFrozenLinear(randn(16, 12).to(ScalarType.BFloat16)));
        using var peft = one.GetPeftModel(Config);
        TinyNet.Randomise(peft);
        var report = peft.Merge();
        var layer = Assert.Single(report.Layers);
        Assert.Equal("lin", layer.Path);
        Assert.InRange(layer.RoundingNorm / layer.DeltaNorm, 1e-4, 0.1);
        Assert.Equal(report.WorstRounding, layer.RoundingNorm / layer.DeltaNorm);
        Assert.StartsWith("default merged into 1 layers; rounding is at most ", report.ToString());
    }

    private static nn.Module<Tensor, Tensor> Layer(string storage, Tensor weight, Tensor? bias) => storage switch
    {
        "torch" => nn.Linear(new Parameter(weight.clone()), bias is null ? null : new Parameter(bias.clone())),
        "dense" => new DenseFrozenLinear(weight.clone(), bias?.clone()),
        _ => new TransposedFrozenLinear(weight.t().contiguous().clone(), bias?.clone()),
    };

    private sealed record FixedMask(Tensor Kept) : IDropoutSource, IDropoutMask
    {
        private double _probability;

        public IDropoutMask Draw(string module, Tensor input, double probability)
        {
            _probability = probability;
            return this;
        }

        public Tensor Apply(Tensor input) => input * Kept.view(input.shape) / (1 - _probability);
    }
}
