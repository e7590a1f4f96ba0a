namespace Peft.Llava;

/// <summary>Sizes and settings of the LLaMA decoder, by the names of its <c>config.json</c>.</summary>
public sealed record LanguageConfig
{
    /// <summary><c>vocab_size</c>: rows of the embedding.</summary>
    public required int VocabularySize { get; init; }

    /// <summary><c>hidden_size</c>.</summary>
    public required int HiddenSize { get; init; }

    /// <summary><c>intermediate_size</c>: width of the gated MLP.</summary>
    public required int IntermediateSize { get; init; }

    /// <summary><c>num_hidden_layers</c>.</summary>
    public required int LayerCount { get; init; }

    /// <summary><c>num_attention_heads</c>.</summary>
    public required int HeadCount { get; init; }

    /// <summary><c>num_key_value_heads</c>; fewer than the heads is grouped-query attention.</summary>
    public required int KeyValueHeadCount { get; init; }

    /// <summary><c>head_dim</c>, or hidden size / heads.</summary>
    public required int HeadDim { get; init; }

    /// <summary><c>max_position_embeddings</c>.</summary>
    public int MaxPositions { get; init; } = 2048;

    /// <summary><c>rms_norm_eps</c>.</summary>
    public double NormEpsilon { get; init; } = 1e-6;

    /// <summary><c>rope_theta</c>.</summary>
    public double RopeTheta { get; init; } = 10000;

    /// <summary><c>rope_scaling</c>, or null.</summary>
    public RopeScaling? RopeScaling { get; init; }

    /// <summary><c>attention_bias</c>: biases on q, k, v and o.</summary>
    public bool AttentionBias { get; init; }

    /// <summary><c>mlp_bias</c>: biases on gate, up and down.</summary>
    public bool MlpBias { get; init; }

    /// <summary><c>tie_word_embeddings</c>: the head is the embedding.</summary>
    public bool TieWordEmbeddings { get; init; }

    /// <summary><c>bos_token_id</c>.</summary>
    public int BosTokenId { get; init; } = 1;

    /// <summary><c>eos_token_id</c>; several are possible.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [2];

    /// <summary><c>pad_token_id</c>, or null.</summary>
    public int? PadTokenId { get; init; }
}
