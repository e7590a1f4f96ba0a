using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Takes a packed weight's place while adapters are merged: sums are made in fp32, and where the target is dense the sum is kept here
/// instead of being quantised.
/// </summary>
/// <param name="dtype">The dtype to keep a merged weight in; null to have it quantised.</param>
/// <param name="original">Gives the original weight (fresh), or null to start from the decoded one.</param>
internal sealed class MergeStandIn(ScalarType? dtype, Func<Tensor>? original)
{
    private Tensor? _merged;

    /// <summary>The merged or the original weight (fresh), or null where the decoded one counts.</summary>
    public Tensor? Read(ScalarType wanted)
    {
        if (_merged is not null) return _merged.to(wanted, copy: true).DetachFromDisposeScope();
        if (original is null) return null;
        using var weight = original();
        return weight.to(wanted, copy: true).DetachFromDisposeScope();
    }

    /// <summary>Keeps a merged weight, if the target is dense.</summary>
    public bool Take(Tensor weight)
    {
        if (dtype is not { } kept) return false;
        Forget();
        _merged = weight.to(kept, copy: true).DetachFromDisposeScope();
        return true;
    }

    /// <summary>Drops the merged weight.</summary>
    public void Forget()
    {
        _merged?.Dispose();
        _merged = null;
    }
}
