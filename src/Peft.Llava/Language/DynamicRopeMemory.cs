namespace Peft.Llava;

/// <summary>What dynamic rotary scaling remembers from call to call. The references differ, and both depend on the history of the process.</summary>
public enum DynamicRopeMemory
{
    /// <summary>Nothing: the base follows the length of the sequence at hand. The same input always gives the same output.</summary>
    None,

    /// <summary>The largest length seen so far counts for later, shorter sequences too (transformers 4.37, which LLaVA uses).</summary>
    Largest,

    /// <summary>As <see cref="Largest"/>, forgotten at a sequence shorter than <c>max_position_embeddings</c> (transformers 5).</summary>
    LargestUntilShort,
}
