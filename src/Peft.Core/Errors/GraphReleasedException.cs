namespace Peft.Core;

/// <summary>A second backward through a graph whose saved tensors are gone.</summary>
public sealed class GraphReleasedException : PeftException
{
    /// <summary>Creates the exception.</summary>
    public GraphReleasedException()
        : base("This graph has been passed backward already, and what its layers had saved is freed. Run the forward again, or pass it "
            + "the first time outside of BackwardTensors.SinglePass().")
    {
    }
}
