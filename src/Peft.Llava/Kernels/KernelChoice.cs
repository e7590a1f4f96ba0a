namespace Peft.Llava;

/// <summary>
/// Decides, in one place, whether a decoder step of a given size runs on the fused kernels or on libtorch's operators.
/// </summary>
/// <remarks>
/// Both compute the same; in bfloat16 they round in another order. For batches of everyday size the kernels win by far. In between, small
/// batches gain nothing from them, and the operators repeat the reference's roundings bit for bit, which makes small runs comparable.
/// </remarks>
public static class KernelChoice
{
    /// <summary>The smallest batch, in packed tokens, that runs on the kernels.</summary>
    public const long BatchRows = 512;

    /// <summary>The largest decoding step (one token per sequence) for which the number of calls is what costs.</summary>
    public const long DecodingRows = 8;

    /// <summary>Whether the fused kernels run.</summary>
    /// <param name="rows">Packed tokens.</param>
    public static bool Fuses(long rows) => rows is >= BatchRows or <= DecodingRows;
}
