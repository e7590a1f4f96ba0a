using Peft.Core;
using Peft.Quantization;
using TorchSharp;

namespace Peft.Llava;

/// <summary>What <see cref="MemoryEstimator"/> must know beside configuration and options. The defaults are LLaVA's LoRA on one image per sample.</summary>
public sealed record MemoryAssumptions
{
    /// <summary>The adapter; null for r = 128 on the language model's linear layers. Not used where no adapter is trained.</summary>
    public LoraConfig? Lora { get; init; }

    /// <summary>Whether A and B are float32 on a narrower base (<see cref="AdapterOptions.UpcastToFloat32"/>).</summary>
    public bool Float32Adapter { get; init; } = true;

    /// <summary>How the base is quantised; null for not at all.</summary>
    public QuantizationConfig? Quantization { get; init; }

    /// <summary>The dtype of the base's weights; null for that of <see cref="TrainingOptions.Precision"/>.</summary>
    public torch.ScalarType? BaseDtype { get; init; }

    /// <summary>Tokens of each sample, image features included; null for <see cref="TrainingOptions.MaxLength"/>, the worst case.</summary>
    public int? TokensPerSample { get; init; }

    /// <summary>Tokens of each sample that have a label; null for all that are no image features.</summary>
    public int? SupervisedTokensPerSample { get; init; }

    /// <summary>Images of each sample.</summary>
    public int ImagesPerSample { get; init; } = 1;

    /// <summary>Tiles of each image; more than 1 for any resolution (5 for a grid of 2 x 2).</summary>
    public int TilesPerImage { get; init; } = 1;

    /// <summary>Whether the tower's features come from a cache, so that the tower does not run.</summary>
    public bool CachedFeatures { get; init; }

    /// <summary>
    /// What the process itself takes: .NET, libtorch, its work areas. Measured on Linux with libtorch for the CPU; a CUDA context takes about
    /// 500 MB more.
    /// </summary>
    public long RuntimeBytes { get; init; } = 100_000_000;
}
