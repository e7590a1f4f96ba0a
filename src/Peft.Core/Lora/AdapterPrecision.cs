namespace Peft.Core;

/// <summary>The dtype in which an adapter's products run when it differs from that of the activations.</summary>
public enum AdapterPrecision
{
    /// <summary>
    /// PEFT's way: the input is cast to A's dtype, the sum runs in the wider dtype, and the result is cast to the base output's dtype once.
    /// </summary>
    Promote,

    /// <summary>As under autocast: A and B are cast to the dtype of the input for the products; the trained copies keep theirs.</summary>
    BaseDtype,
}
