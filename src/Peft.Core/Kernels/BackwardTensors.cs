using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Ends the life of the tensors that pass through the backward of an autograd function written in C#.
/// </summary>
/// <remarks>
/// TorchSharp wraps the incoming gradient and keeps the returned ones as ordinary tensors, which belong to the dispose scope around
/// <c>backward()</c>: all gradients of all layers would stay in memory until the whole backward is done. libtorch takes its own reference
/// when a function returns, so what one function returned can be disposed when the next one on the same thread does.
/// What a function saved it would keep until the whole graph is gone, unlike libtorch's own functions: see <see cref="SinglePass"/>.
/// </remarks>
public static class BackwardTensors
{
    private const string Released = "released";

    [ThreadStatic] private static List<Tensor>? _returned;
    [ThreadStatic] private static int _singlePass;

    /// <summary>
    /// What <c>save_for_backward</c> was given. Within <see cref="SinglePass"/> the function gives it up, and it is freed when this backward no longer
    /// needs it.
    /// </summary>
    /// <param name="context">The context of the function's backward.</param>
    /// <returns>The tensors in their order, in the current dispose scope.</returns>
    /// <exception cref="GraphReleasedException">The graph has been passed backward within <see cref="SinglePass"/> already. Thrown into libtorch's
    /// backward, where no exception can be caught, it ends the process with its message.</exception>
    public static List<Tensor> Saved(autograd.AutogradContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        if (context.get_data(Released) is true) throw new GraphReleasedException();
        var saved = context.get_saved_variables();
        if (_singlePass == 0) return saved;
        context.save_data(Released, true);
        context.Dispose();      // ends its references alone
        return saved;
    }

    /// <summary>
    /// A region of the calling thread in which each graph is passed backward once, as a training step does: layers give up what they saved as soon as
    /// they have had their turn, so that the activations go while the gradients come. Without it they keep it until the graph's last tensor is
    /// disposed, and <c>retain_graph</c> may be used.
    /// </summary>
    /// <returns>Disposing it closes the region.</returns>
    public static IDisposable SinglePass()
    {
        _singlePass++;
        return new AdapterScope(() => _singlePass--);
    }

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
