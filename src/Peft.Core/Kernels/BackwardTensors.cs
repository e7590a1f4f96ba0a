using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Ends the life of the tensors that pass through the backward of an autograd function written in C#.
/// </summary>
/// <remarks>
/// TorchSharp wraps the incoming gradient and keeps the returned ones as ordinary tensors, which belong to the dispose scope around
/// <c>backward()</c>: all gradients of all layers would stay in memory until the whole backward is done. libtorch takes its own reference
/// when a function returns, so what one function returned can be disposed when the next one on the same thread does.
/// </remarks>
public static class BackwardTensors
{
    [ThreadStatic]
    private static List<Tensor>? _returned;

    /// <summary>Makes the result of a backward.</summary>
    /// <param name="gradOutput">The incoming gradient; disposed.</param>
    /// <param name="gradients">One entry per argument of the function, null where there is no gradient. Ownership is taken.</param>
    /// <returns>The list to return from <c>backward</c>.</returns>
    public static List<Tensor> Return(Tensor gradOutput, params ReadOnlySpan<Tensor?> gradients)
    {
        ArgumentNullException.ThrowIfNull(gradOutput);
        Release();
        var result = new List<Tensor>(gradients.Length);
        foreach (var gradient in gradients)
        {
            if (gradient is not null) (_returned ??= []).Add(gradient.DetachFromDisposeScope());
            result.Add(gradient!);
        }
        if (!result.Contains(gradOutput)) gradOutput.Dispose();
        return result;
    }

    /// <summary>Disposes what this thread's last backward function returned. Worth calling after <c>backward()</c>.</summary>
    public static void Release()
    {
        if (_returned is null) return;
        foreach (var tensor in _returned) tensor.Dispose();
        _returned.Clear();
    }
}
