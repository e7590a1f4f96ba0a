namespace Peft.Llava;

/// <summary>Whose names and conventions a checkpoint follows.</summary>
public enum CheckpointLayout
{
    /// <summary>LLaVA's own repository: <c>model.layers.0…</c>, <c>model.mm_projector.0</c>, the tower in a folder of its own.</summary>
    Original,

    /// <summary>transformers' <c>LlavaForConditionalGeneration</c> (v1.5).</summary>
    HuggingFace,

    /// <summary>transformers' <c>LlavaNextForConditionalGeneration</c> (v1.6, any resolution).</summary>
    HuggingFaceNext,

    /// <summary>A plain language model, <c>LlamaForCausalLM</c>, without vision.</summary>
    Llama,
}
