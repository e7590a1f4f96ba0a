namespace Peft.Core;

/// <summary>Ends the small native objects that TorchSharp leaves to the finalizer.</summary>
public static class NativeHandles
{
    /// <summary>
    /// Collects them and waits until they are freed, a few milliseconds. Worth calling between the steps of a loop, when no tensor operation is
    /// running on another thread's behalf.
    /// </summary>
    /// <remarks>
    /// Every scalar that an operator takes is a native object of 32 bytes until its finalizer runs, and .NET sees no reason to hurry. In between
    /// they lie among the freed tensors of the native heap and keep their gaps from joining: measured on a training of 1.05 GB in use, the
    /// process grew by 150 MB each step to 2.3 GB; with a call per step it stays at 1.35 GB.
    /// </remarks>
    public static void Release()
    {
        GC.Collect(1, GCCollectionMode.Forced, blocking: true);
        GC.WaitForPendingFinalizers();
    }
}
