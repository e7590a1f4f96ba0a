namespace Peft.Core;

/// <summary>
/// A region in which layers run again for the sake of their backward alone, and the last of them need not give its output: with gradient
/// checkpointing a layer's result is known from the first run. A LoRA layer with one plain adapter then saves what its backward needs and
/// returns memory of unknown content, without the product with its weight.
/// </summary>
/// <remarks>Of the present call alone. Whoever opens it must use the output for nothing but its shape and the start of a backward.</remarks>
public static class BackwardOnly
{
    private static readonly AsyncLocal<int> Depth = new();

    internal static bool IsOn => Depth.Value > 0;

    /// <summary>Opens the region.</summary>
    /// <returns>Disposing it closes the region.</returns>
    public static IDisposable Begin()
    {
        Depth.Value++;
        return new AdapterScope(() => Depth.Value--);
    }
}
