using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>How a model's linear layers are quantised. Its file form is <c>quantization_config</c> of a <c>config.json</c>: see <see cref="QuantizationConfigJson"/>.</summary>
public sealed record QuantizationConfig
{
    /// <summary>The layers of a LLaVA model that stay as they are unless told otherwise.</summary>
    public static IReadOnlyList<string> DefaultSkipModules { get; } = ["mm_projector", "lm_head", "vision_tower"];

    /// <summary>4 or 8 (LLM.int8). <c>load_in_4bit</c>, <c>load_in_8bit</c>.</summary>
    public required int Bits { get; init; }

    /// <summary>The 4-bit code. <c>bnb_4bit_quant_type</c>.</summary>
    public QuantType QuantType { get; init; } = QuantType.Nf4;

    /// <summary>Values per block of the 4-bit code.</summary>
    public int BlockSize { get; init; } = 64;

    /// <summary>Whether block maxima are quantised too. <c>bnb_4bit_use_double_quant</c>.</summary>
    public bool DoubleQuantization { get; init; }

    /// <summary>The dtype of 4-bit layers' products; null for that of each input. <c>bnb_4bit_compute_dtype</c>.</summary>
    public ScalarType? ComputeDtype { get; init; }

    /// <summary>From which magnitude on an input of an int8 layer is an outlier; 0 for none. <c>llm_int8_threshold</c>.</summary>
    public float Threshold { get; init; } = Int8Linear.DefaultThreshold;

    /// <summary>Layers that stay as they are, in place of <see cref="DefaultSkipModules"/>; null for those. <c>llm_int8_skip_modules</c>.</summary>
    public IReadOnlyList<string>? SkipModules { get; init; }

    /// <summary>How the names match.</summary>
    public SkipRule SkipRule { get; init; }

    /// <summary>NF4 with double quantisation, as QLoRA uses it.</summary>
    /// <param name="computeDtype">The dtype of products; null for that of each input.</param>
    /// <param name="doubleQuantization">Whether block maxima are quantised too.</param>
    public static QuantizationConfig Nf4(ScalarType? computeDtype = null, bool doubleQuantization = true)
        => new() { Bits = 4, ComputeDtype = computeDtype, DoubleQuantization = doubleQuantization };

    /// <summary>FP4.</summary>
    /// <param name="computeDtype">The dtype of products; null for that of each input.</param>
    /// <param name="doubleQuantization">Whether block maxima are quantised too.</param>
    public static QuantizationConfig Fp4(ScalarType? computeDtype = null, bool doubleQuantization = false)
        => new() { Bits = 4, QuantType = QuantType.Fp4, ComputeDtype = computeDtype, DoubleQuantization = doubleQuantization };

    /// <summary>LLM.int8.</summary>
    /// <param name="threshold">The outlier threshold.</param>
    public static QuantizationConfig Int8(float threshold = Int8Linear.DefaultThreshold) => new() { Bits = 8, Threshold = threshold };

    /// <summary>Everything that is wrong with the values; empty if nothing is.</summary>
    public IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        if (Bits is not (4 or 8)) problems.Add($"bits must be 4 or 8, got {Bits}");
        if (Bits == 4 && QuantType != QuantType.Nf4 && QuantType != QuantType.Fp4) problems.Add($"quant_type must be nf4 or fp4, got '{QuantType}'");
        if (Bits == 4 && !FourBitCodec.BlockSizes.Contains(BlockSize))
            problems.Add($"blocksize must be one of {string.Join(", ", FourBitCodec.BlockSizes)}, got {BlockSize}");
        if (ComputeDtype is { } dtype && dtype is not (ScalarType.Float32 or ScalarType.BFloat16 or ScalarType.Float16))
            problems.Add($"compute dtype must be float32, bfloat16 or float16, got {dtype}");
        if (Threshold < 0 || float.IsNaN(Threshold)) problems.Add($"llm_int8_threshold must be 0 or above, got {Threshold}");
        return problems;
    }

    /// <summary>Whether a layer stays as it is.</summary>
    /// <param name="path">Its path, in the words of the skip list.</param>
    public bool Skips(string path) => (SkipModules ?? DefaultSkipModules).Any(name => SkipRule.Matches(name, path));
}
