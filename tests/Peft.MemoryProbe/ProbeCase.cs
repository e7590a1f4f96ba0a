using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Llava;
using Peft.Quantization;
using static TorchSharp.torch;

namespace Peft.MemoryProbe;

/// <summary>A training whose memory is estimated and measured.</summary>
internal sealed record ProbeCase(
    string Name, int Hidden, int Layers, int Heads, int KeyValueHeads, int Intermediate, int Vocabulary, int VisionHidden, int VisionLayers, int VisionHeads,
    int ImageSize, int Rank, double Dropout, ScalarType Dtype, QuantizationConfig? Quantization, bool Checkpointing, int Batch, int Accumulation, int Tokens,
    int Supervised)
{
    public static IReadOnlyList<ProbeCase> All { get; } =
    [
        new("lora_bf16", 768, 5, 12, 12, 2048, 16000, 384, 4, 6, 224, 64, 0.05, ScalarType.BFloat16, null, false, 2, 1, 700, 200),
        new("lora_fp32_ckpt", 512, 6, 8, 4, 1376, 12000, 256, 4, 4, 224, 32, 0, ScalarType.Float32, null, true, 2, 2, 560, 300),
        new("qlora_nf4_ckpt", 1024, 5, 16, 16, 2752, 16000, 384, 4, 6, 224, 64, 0.05, ScalarType.BFloat16, QuantizationConfig.Nf4(), true, 1, 1, 1200, 600),
    ];

    public LlavaConfig Config => LlavaConfig.Parse(new JsonObject
    {
        ["architectures"] = new JsonArray("LlavaLlamaForCausalLM"),
        ["model_type"] = "llava_llama",
        ["vocab_size"] = Vocabulary,
        ["hidden_size"] = Hidden,
        ["intermediate_size"] = Intermediate,
        ["num_hidden_layers"] = Layers,
        ["num_attention_heads"] = Heads,
        ["num_key_value_heads"] = KeyValueHeads,
        ["max_position_embeddings"] = 4096,
        ["mm_vision_tower"] = "random",
        ["mm_hidden_size"] = VisionHidden,
        ["mm_projector_type"] = "mlp2x_gelu",
        ["mm_vision_select_layer"] = -2,
        ["mm_vision_select_feature"] = "patch",
    }).WithVision(new VisionConfig
    {
        HiddenSize = VisionHidden, IntermediateSize = 4 * VisionHidden, LayerCount = VisionLayers, HeadCount = VisionHeads, ImageSize = ImageSize, PatchSize = 14,
    });

    public LoraConfig Lora => new()
    {
        Rank = Rank,
        Alpha = 2 * Rank,
        Dropout = Dropout,
        TargetModules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    };

    public TrainingOptions OptionsFor(string folder) => new()
    {
        OutputDirectory = folder,
        Precision = Dtype == ScalarType.Float32 ? TrainingPrecision.Float32 : TrainingPrecision.BFloat16,
        GradientCheckpointing = Checkpointing,
        BatchSize = Batch,
        AccumulationSteps = Accumulation,
        MaxSteps = 2,
        MaxLength = Tokens,
        SaveStrategy = SaveStrategy.None,
    };

    public MemoryAssumptions Assumptions => new()
    {
        Lora = Lora, Quantization = Quantization, TokensPerSample = Tokens, SupervisedTokensPerSample = Supervised,
    };
}
