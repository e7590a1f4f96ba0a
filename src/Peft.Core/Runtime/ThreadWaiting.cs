namespace Peft.Core;

/// <summary>
/// Bounds how long libtorch's threads (GNU OpenMP) spin while they wait for one another. By default they spin for milliseconds; as soon as another
/// process wants the processor, each then burns the time that the other's partner needs to go on: on two busy cores a training of a small model took
/// 79 s, with this 9 s. A thousand turns, some microseconds, still bridge the gap from one operation to the next.
/// </summary>
internal static class ThreadWaiting
{
    private const string Variable = "GOMP_SPINCOUNT";
    private const string Turns = "1000";

    /// <summary>Sets the bound unless the user has set it, or the OpenMP variable that decides the same. Does nothing off Linux.</summary>
    public static void Bound()
    {
        if (NativeVariable.Get("OMP_WAIT_POLICY") is null) NativeVariable.SetUnlessSet(Variable, Turns);
    }

    /// <summary>The value that native code sees; null if unset or not on Linux.</summary>
    public static string? Value => NativeVariable.Get(Variable);
}
