namespace Peft.Llava;

/// <summary>The ranks of a layer's linear layers; 0 where it has no adapter.</summary>
internal sealed record LayerRanks(long Query, long Key, long Value, long Output, long Gate, long Up, long Down)
{
    public long Sum => Query + Key + Value + Output + Gate + Up + Down;

    public bool OnAttentionInput => Query + Key + Value > 0;

    public bool OnMlpInput => Gate + Up > 0;
}

/// <summary>
/// What a decoder layer keeps for its backward pass, by the autograd functions that run: the norms keep input and root, LoRA its input and
/// the product with A, attention the rotated q, k, v, output and log-sums, SwiGLU its two inputs.
/// </summary>
internal sealed class DecoderMemory(LanguageConfig config, MemoryShape shape, bool trainsWeights)
{
    private const long Float = sizeof(float);
    private const long QueryBlock = 128;

    private long Width => config.HiddenSize;

    private long Queries => (long)config.HeadCount * config.HeadDim;

    private long Keys => (long)config.KeyValueHeadCount * config.HeadDim;

    /// <summary>The stream between two layers.</summary>
    public long Stream => shape.Rows * Width * shape.Size;

    /// <summary>Bytes a layer keeps.</summary>
    public long Kept(LayerRanks ranks)
    {
        long n = shape.Rows, e = shape.Size;
        bool attentionInput = ranks.OnAttentionInput || trainsWeights, mlpInput = ranks.OnMlpInput || trainsWeights;
        long norms = 2 * (n * Width * e + n * Float) + (attentionInput ? n * Width * e : 0) + (mlpInput ? n * Width * e : 0);
        if (trainsWeights) norms += 2 * n * Width * (e == Float ? Float : Float + e);       // trained norms run by operators
        long attention = 2 * n * Queries * e + 2 * n * (shape.Fused ? Keys : Queries) * e + n * config.HeadCount * Float;
        long mlp = (shape.Fused ? 2 : 3) * n * config.IntermediateSize * e
            + (ranks.Down > 0 || trainsWeights ? n * config.IntermediateSize * e : 0);
        return norms + attention + mlp + n * ranks.Sum * e;
    }

    /// <summary>Bytes that the largest operation of a layer's backward takes beside what is kept.</summary>
    public long Temporaries(LayerRanks ranks)
    {
        long n = shape.Rows, e = shape.Size, f = config.IntermediateSize;
        // down: its gradient, that of the input, LoRA's own, and the dropped input; the gradient of the stream waits beside it.
        long lora = ranks.Down > 0 ? (shape.Dropout ? 2 : 1) : 0;
        long down = Stream * 2 + (1 + lora) * n * f * e;
        // SwiGLU: the incoming gradient and two of its own; then gate and up return one (N, D) each.
        long swiglu = Stream + 3 * n * f * e;
        long gate = Stream * (2 + (ranks.OnMlpInput ? (shape.Dropout ? 2 : 1) : 0)) + 2 * n * f * e;
        long scores = config.HeadCount * QueryBlock * Math.Min(shape.LongestSample + 32, n) * e * 3;
        long heads = n * Queries * (2 * e + 3 * Float + 2 * e + (config.HeadCount == config.KeyValueHeadCount ? 0 : 2 * e) + 3 * e);
        long attention = Stream + heads + scores;
        return Math.Max(Math.Max(down, swiglu), Math.Max(gate, attention));
    }
}
