namespace Peft.Llava;

/// <summary>Sizes of the CLIP vision tower, by the names of its <c>config.json</c>.</summary>
public sealed record VisionConfig
{
    /// <summary><c>hidden_size</c>.</summary>
    public required int HiddenSize { get; init; }

    /// <summary><c>intermediate_size</c>.</summary>
    public required int IntermediateSize { get; init; }

    /// <summary><c>num_hidden_layers</c>.</summary>
    public required int LayerCount { get; init; }

    /// <summary><c>num_attention_heads</c>.</summary>
    public required int HeadCount { get; init; }

    /// <summary><c>image_size</c>: side of the square input.</summary>
    public required int ImageSize { get; init; }

    /// <summary><c>patch_size</c>.</summary>
    public required int PatchSize { get; init; }

    /// <summary><c>num_channels</c>.</summary>
    public int ChannelCount { get; init; } = 3;

    /// <summary><c>layer_norm_eps</c>.</summary>
    public double NormEpsilon { get; init; } = 1e-5;

    /// <summary>Patches along one side.</summary>
    public int PatchesPerSide => ImageSize / PatchSize;

    /// <summary>Patches of one image, the class token not counted.</summary>
    public int PatchCount => PatchesPerSide * PatchesPerSide;
}
