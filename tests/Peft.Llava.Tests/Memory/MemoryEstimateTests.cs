using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Quantization;
using Xunit;

namespace Peft.Llava.Tests.Memory;

public sealed class MemoryEstimateTests
{
    private const long LoraElements = 32L * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008));
    private const long ProjectorElements = 1024L * 4096 + 4096 + 4096 * 4096 + 4096;
    private const long LinearElements = 32L * (4 * 4096 * 4096 + 3 * 4096 * 11008);

    private static readonly TrainingOptions Options = TrainingPresets.FinetuneQlora with { BatchSize = 1, MaxLength = 2048 };

    [Fact]
    public void Seven_billion_in_nf4_with_rank_128_fit_24_gigabytes()
    {
        var estimate = Llava7B.EstimateMemory(Options, new MemoryAssumptions { Quantization = QuantizationConfig.Nf4() });
        var peak = estimate.Peak;
        Assert.Equal(LoraElements * 4, peak.Adapter);
        Assert.Equal(2 * (LoraElements * 4 + ProjectorElements * 2), peak.Optimizer);
        Assert.Equal(LoraElements + ProjectorElements, estimate.TrainedElements);
        // Half a byte, a byte per 64 and a float per 64 * 256 weights; the rest in bf16; one weight decoded.
        double nf4 = LinearElements * (0.5 + 1 / 64.0 + 4 / (64.0 * 256)) + 32 * 7 * 4;
        double dense = (estimate.BaseElements - LinearElements) * 2.0 + 2.0 * 4096 * 11008;
        Assert.Equal(nf4 + dense, peak.Base, 1e5);
        Assert.InRange(estimate.PeakBytes, 8e9, 14e9);
        Assert.Equal("its end", peak.Name);
    }

    [Fact]
    public void The_parts_move_with_what_they_stand_for()
    {
        var plain = Llava7B.EstimateMemory(Options with { GradientCheckpointing = false });
        var checkpointed = Llava7B.EstimateMemory(Options);
        Assert.Equal(6_738_415_616 + ProjectorElements + TowerElements, plain.BaseElements);
        Assert.Equal(2 * plain.BaseElements, plain.Peak.Base);
        Assert.True(plain.Peak.Activations > 10 * checkpointed.Peak.Activations);
        Assert.Equal("loss", plain.Peak.Name);

        var int8 = Llava7B.EstimateMemory(Options, new MemoryAssumptions { Quantization = QuantizationConfig.Int8() });
        Assert.InRange(checkpointed.Peak.Base - int8.Peak.Base, 0.97 * LinearElements, 1.0 * LinearElements);

        var adafactor = Llava7B.EstimateMemory(Options with { Optimizer = OptimizerKind.Adafactor });
        Assert.True(adafactor.Peak.Optimizer < checkpointed.Peak.Optimizer / 20);

        var half = Llava7B.EstimateMemory(Options, new MemoryAssumptions { Float32Adapter = false, Lora = Lora(64) });
        Assert.Equal(LoraElements / 2 * 2, half.Peak.Adapter);

        // What learns on a float16 base is float32, the projector too.
        var scaled = Llava7B.EstimateMemory(Options with { Precision = TrainingPrecision.Float16 });
        Assert.Equal(2 * 4 * (LoraElements + ProjectorElements), scaled.Peak.Optimizer);
        Assert.Equal(checkpointed.Peak.Base + 2 * ProjectorElements, scaled.Peak.Base);
        // Its input and the two sides of its GELU are kept in float32, and what it returns is float32 too.
        Assert.Equal((576 * 1024 + 2 * 576 * 4096) * 2, scaled.Moments[2].Vision - checkpointed.Moments[2].Vision);
        Assert.Equal((576 * 1024 + 4 * 576 * 4096) * 2, scaled.Moments[1].Vision - checkpointed.Moments[1].Vision);
        var frozen = Llava7B.EstimateMemory(Options with { Precision = TrainingPrecision.Float16, Trainable = TrainableParts.Lora(projector: false) });
        Assert.Equal((checkpointed.Peak.Base, 2 * 4 * LoraElements), (frozen.Peak.Base, frozen.Peak.Optimizer));

        var two = Llava7B.EstimateMemory(Options with { BatchSize = 2, GradientCheckpointing = false });
        Assert.InRange(two.Peak.Activations / (double)plain.Peak.Activations, 1.9, 2.1);

        var cached = Llava7B.EstimateMemory(Options, new MemoryAssumptions { CachedFeatures = true });
        Assert.True(cached.Moments[0].Vision < checkpointed.Moments[0].Vision / 10);

        var accumulated = Llava7B.EstimateMemory(Options with { AccumulationSteps = 4, GradientCheckpointing = false });
        Assert.Equal(LoraElements * 4 + ProjectorElements * 2, accumulated.Moments.Single(m => m.Name == "loss").Gradients);
    }

    [Fact]
    public void Full_training_keeps_gradients_and_moments_of_every_trained_weight()
    {
        var full = Llava7B.EstimateMemory(Options with { Trainable = TrainableParts.Full() });
        Assert.Equal(0, full.Peak.Adapter);
        Assert.Equal(6_738_415_616 + ProjectorElements, full.TrainedElements);
        Assert.Equal(2 * 2 * full.TrainedElements, full.Peak.Optimizer);
    }

    [Fact]
    public void The_table_has_a_row_for_every_part()
    {
        string[] lines = Llava7B.EstimateMemory(Options, new MemoryAssumptions { Quantization = QuantizationConfig.Nf4() }).ToString().Split('\n');
        Assert.Equal(["MB", "base", "adapter", "optimizer", "gradients", "activations", "vision", "logits", "runtime", "total"],
            lines[..10].Select(l => l.Split(' ')[0]));
        Assert.Contains("its end*", lines[0]);
        Assert.Equal("7062.9 M elements in the base, 340.8 M trained; * is the peak", lines[10]);
        Assert.All(lines[1..10], l => Assert.Equal(12 * 6, l.Length));
    }

    [Fact]
    public void What_cannot_be_estimated_is_refused_with_all_reasons()
    {
        var blind = LlavaConfig.Parse(Document);
        var error = Assert.Throws<TrainingOptionsException>(() => blind.EstimateMemory(
            Options with { BatchSize = 0, MaxLength = 0, Trainable = TrainableParts.Lora() with { Head = true } }));
        Assert.Contains("an adapter and the language model itself are both to be trained", error.Message);
        Assert.Contains("the vision tower's sizes are not known from config.json; add them by LlavaConfig.WithVision", error.Message);
        Assert.Contains("BatchSize 0 is not positive", error.Message);
        Assert.Contains("a sample has no tokens; set TokensPerSample or MaxLength", error.Message);
        Assert.Equal("target_modules [qproj] matches none of the 372 fitting modules. Names present: 0, 2, down_proj, embed_tokens, fc1, fc2, gate_proj, k_proj, lm_head, o_proj, out_proj, q_proj, "
            + "up_proj, v_proj. Probably meant: q_proj for qproj.",
            Assert.Throws<TargetNotFoundException>(() => Llava7B.EstimateMemory(Options, new MemoryAssumptions { Lora = Lora(8) with { TargetModules = ["qproj"] } })).Message);
    }

    private static long TowerElements
        => ModelManifest.Of(Llava7B).Where(s => LlavaModel.PartOf(s.Name) == ModelPart.VisionTower).Sum(s => s.Shape.Aggregate(1L, (a, b) => a * b));

    private static LoraConfig Lora(int rank) => new()
    {
        Rank = rank, Alpha = 2 * rank, Dropout = 0.05, TargetModules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    };

    private static JsonObject Document => new()
    {
        ["architectures"] = new JsonArray("LlavaLlamaForCausalLM"),
        ["model_type"] = "llava_llama",
        ["vocab_size"] = 32000,
        ["hidden_size"] = 4096,
        ["intermediate_size"] = 11008,
        ["num_hidden_layers"] = 32,
        ["num_attention_heads"] = 32,
        ["num_key_value_heads"] = 32,
        ["mm_vision_tower"] = "openai/clip-vit-large-patch14-336",
        ["mm_hidden_size"] = 1024,
        ["mm_projector_type"] = "mlp2x_gelu",
        ["mm_vision_select_layer"] = -2,
        ["mm_vision_select_feature"] = "patch",
    };

    private static LlavaConfig Llava7B => LlavaConfig.Parse(Document).WithVision(new VisionConfig
    {
        HiddenSize = 1024, IntermediateSize = 4096, LayerCount = 24, HeadCount = 16, ImageSize = 336, PatchSize = 14,
    });
}
