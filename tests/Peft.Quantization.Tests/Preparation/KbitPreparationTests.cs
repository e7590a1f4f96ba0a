using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class KbitPreparationTests
{
    [Fact]
    public void The_lean_default_casts_norms_alone()
    {
        using var model = Load(QuantizationConfig.Nf4(ScalarType.BFloat16));
        var report = model.PrepareModelForKbitTraining();
        Assert.NotEmpty(report.Cast);
        Assert.All(report.Cast, c => Assert.Contains("norm", c.Name, StringComparison.Ordinal));
        Assert.Equal(report.Cast.Sum(c => c.AddedBytes), report.AddedBytes);
        Assert.True(model.GradientCheckpointing);
        foreach (var (name, parameter) in model.named_parameters())
        {
            Assert.False(parameter.requires_grad);
            Assert.Equal(name.Contains("norm", StringComparison.Ordinal) ? ScalarType.Float32 : ScalarType.BFloat16, parameter.dtype);
        }
        Assert.Equal(ScalarType.BFloat16, model.Dtype);
        Assert.Equal($"{report.Cast.Count} parameters cast (+{report.AddedBytes:#,0} bytes), 0 frozen, gradient checkpointing on", report.ToString());
    }

    [Fact]
    public void Preparing_casts_in_the_modules_themselves_and_training_goes_on_working()
    {
        using var scope = NewDisposeScope();
        using var model = Load(QuantizationConfig.Nf4(ScalarType.BFloat16));
        model.PrepareModelForKbitTraining();
        using var peft = model.GetPeftModel(
            new LoraConfig { Rank = 4, Alpha = 10, TargetModules = model.FindAllLinearNames() }, options: new AdapterOptions { UpcastToFloat32 = false });
        KbitPreparation.ApplyLlavaCasts(model);
        Assert.All(peft.TrainableParameters(), p => Assert.Equal(ScalarType.BFloat16, p.Parameter.dtype));
        model.train();
        var ids = arange(3, 16).view(1, 13).to(ScalarType.Int64);
        var inputs = new Dictionary<string, Tensor> { ["attention_mask"] = ones_like(ids), ["labels"] = ids, ["input_ids"] = ids };
        using var batch = GoldenModel.Batch(model.Config, inputs);
        LeakGuard.AssertFlat(3, () =>
        {
            using var inner = NewDisposeScope();
            var (sum, count) = model.LossSum(batch);
            (sum / count).backward();
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.grad = null;
        });
    }

    [Fact]
    public void LLaVA_s_casts_bring_head_and_embedding_back_to_the_training_dtype()
    {
        using var model = Load(QuantizationConfig.Nf4(ScalarType.BFloat16));
        model.PrepareModelForKbitTraining(new KbitPreparationOptions { Casts = KbitCasts.EverythingAsPeft });
        Assert.Equal(ScalarType.Float32, model.Dtype);
        var report = KbitPreparation.ApplyLlavaCasts(model);
        Assert.Equal(ScalarType.BFloat16, model.Dtype);
        Assert.Equal(["lm_head.weight", "model.embed_tokens.weight"], report.Cast.Select(c => c.Name).Order());
        Assert.True(report.AddedBytes < 0);
    }

    [Fact]
    public void Parameters_that_were_trained_are_frozen_and_shared_ones_stay_shared()
    {
        using var scope = NewDisposeScope();
        var shared = new Parameter(randn([5], ScalarType.BFloat16));
        using var model = new TwoNorms(shared);
        var report = model.PrepareModelForKbitTraining(new KbitPreparationOptions { UseGradientCheckpointing = false });
        Assert.Equal(1, report.Frozen);
        Assert.Single(report.Cast);
        Assert.Same(model.First.Weight, model.Second.Weight);
        Assert.Equal(ScalarType.Float32, model.First.Weight.dtype);
        Assert.Equal(2, model.state_dict().Count);
    }

    [Fact]
    public void A_model_without_the_switch_cannot_have_checkpointing()
    {
        using var scope = NewDisposeScope();
        using var model = new OneLayer(new DenseFrozenLinear(randn(3, 4)));
        var e = Assert.Throws<KbitPreparationException>(() => model.PrepareModelForKbitTraining());
        Assert.Equal("OneLayer has no gradient checkpointing to switch on (it is no IGradientCheckpointing). "
            + "Set UseGradientCheckpointing to false, or implement the interface.", e.Message);
    }

    private static LlavaModel Load(QuantizationConfig config)
    {
        string folder = Goldens.Cases(QuantGolden.Area).First(c => c.Kind == "checkpoint" && c.Name.Contains("llama", StringComparison.Ordinal)).PathOf("../_base_llama");
        return LlavaModel.Load(folder, new LlavaLoadOptions { Quantization = config, Dtype = ScalarType.BFloat16 });
    }

    private sealed class Norm : nn.Module<Tensor, Tensor>
    {
#pragma warning disable IDE0044 // registered by TorchSharp through reflection
        [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
#pragma warning restore IDE0044

        public Norm(Parameter weight)
            : base(nameof(Norm))
        {
            _weight = weight;
            RegisterComponents();
        }

        public Parameter Weight => _weight;

        public override Tensor forward(Tensor input) => input * _weight;
    }

    private sealed class TwoNorms : nn.Module<Tensor, Tensor>
    {
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
        [TorchSharp.Utils.ComponentName(Name = "first_norm")] private Norm _first;
        [TorchSharp.Utils.ComponentName(Name = "second_norm")] private Norm _second;
#pragma warning restore IDE0044, CA1823

        public TwoNorms(Parameter shared)
            : base(nameof(TwoNorms))
        {
            _first = new Norm(shared);
            _second = new Norm(shared);
            RegisterComponents();
        }

        public Norm First => _first;

        public Norm Second => _second;

        public override Tensor forward(Tensor input) => _second.call(_first.call(input));
    }
}
