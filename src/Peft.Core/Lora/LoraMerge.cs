using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Adds adapters to a layer's base weight, with PEFT's roundings.</summary>
internal static class LoraMerge
{
    /// <summary>Merges the adapters that have tensors in a layer, one after the other.</summary>
    /// <param name="layer">The layer, into which nothing is merged yet.</param>
    /// <param name="names">The adapters, in order.</param>
    /// <param name="safe">Whether each delta is rounded to the weight's dtype before it is added.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="NonFiniteWeightsException">The sum is not finite; the layer has not changed.</exception>
    public static MergedLayer Merge(LoraLayer layer, IReadOnlyList<string> names, bool safe)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var here = names.Where(layer.Adapters.ContainsKey).ToList();
        var before = layer.BaseWeight(layer.BaseDtype).MoveToCurrent();
        if (here.Count == 1 && MergeInOnePass(layer, layer.Adapters[here[0]], before, safe) is { } merged) return merged;
        var deltas = here.ToDictionary(name => name, name => layer.DeltaWeight(name).MoveToCurrent());
        var weight = before;
        foreach (string name in here) weight = Merged(layer, layer.Adapters[name], deltas[name], weight, before, safe);
        if (!IsFinite(weight)) throw new NonFiniteWeightsException([layer.ModulePath], "Merge");
        layer.OverwriteBase(weight);
        foreach (string name in here) AddBias(layer, layer.Adapters[name]);
        var stored = layer.BaseWeight(ScalarType.Float32).MoveToCurrent();
        var exact = before.to(ScalarType.Float32);
        var wanted = exact;
        foreach (string name in here) wanted = Merged(layer, layer.Adapters[name], deltas[name], wanted, exact, safe: false);
        return new MergedLayer(layer.ModulePath, here, Norm(exact), Norm(wanted - exact), Norm(stored.sub_(wanted)));
    }

    /// <summary>Whether a merge would give finite weights; nothing changes.</summary>
    /// <param name="layer">The layer, into which nothing is merged yet.</param>
    /// <param name="names">The adapters, in order.</param>
    /// <param name="safe">As for <see cref="Merge"/>.</param>
    public static bool IsFinite(LoraLayer layer, IReadOnlyList<string> names, bool safe)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var here = names.Where(layer.Adapters.ContainsKey).Select(name => layer.Adapters[name]).ToList();
        var before = layer.BaseWeight(layer.BaseDtype).MoveToCurrent();
        // An element of B A is at most r times the largest of each: far below the limit with sane weights, and then no sum need be made.
        double bound = Largest(before);
        foreach (var adapter in here) bound += Math.Abs(adapter.Scaling) * adapter.Rank * Largest(adapter.A) * Largest(adapter.B);
        if (here.All(adapter => adapter.Magnitude is null) && bound < LargestOf(before.dtype)) return true;
        var weight = before;
        foreach (var adapter in here) weight = Merged(layer, adapter, layer.DeltaWeight(adapter.Name).MoveToCurrent(), weight, before, safe);
        return IsFinite(weight);
    }

    private static double Largest(Tensor tensor) => tensor.numel() == 0 ? 0 : Math.Max(tensor.max().ToDouble(), -tensor.min().ToDouble());

    // Half of the largest number, so that no rounding on the way matters.
    private static double LargestOf(ScalarType dtype) => finfo(dtype).max / 2;

    /// <summary>One adapter without DoRA on a dense weight: sum, roundings and measures in one pass. Null where that does not fit.</summary>
    private static MergedLayer? MergeInOnePass(LoraLayer layer, LoraAdapter adapter, Tensor weight, bool safe)
    {
        if (adapter.Magnitude is not null || adapter.B.dtype != ScalarType.Float32 || layer is not LoraLinear { BaseLayer: DenseFrozenLinear or TorchLinear }) return null;
        var product = layer.ProductOf(adapter.A.detach(), adapter.B.detach());
        if (!MergeKernel.CanRun(weight, product)) return null;
        var done = MergeKernel.Add(weight, product, (float)adapter.Scaling, safe);
        if (!done.IsFinite) throw new NonFiniteWeightsException([layer.ModulePath], "Merge");
        layer.OverwriteBase(weight);
        AddBias(layer, adapter);
        return new MergedLayer(layer.ModulePath, [adapter.Name], done.WeightNorm, done.DeltaNorm, done.ErrorNorm);
    }

    private static void AddBias(LoraLayer layer, LoraAdapter adapter)
    {
        if (adapter.BBias is { } own) layer.BaseBias!.copy_(layer.BaseBias + own * adapter.Scaling);
    }

    // DoRA's norm is that of the unmerged base with this adapter alone, as in the forward, also where others are merged before it.
    private static Tensor Merged(LoraLayer layer, LoraAdapter adapter, Tensor delta, Tensor weight, Tensor original, bool safe)
    {
        if (adapter.Magnitude is null) return safe ? weight + delta.to(weight.dtype) : (weight + delta).to(weight.dtype);
        var factor = layer.OverWeight(adapter.Magnitude / layer.NormsOf(original + delta));
        return (factor * (weight + delta)).to(weight.dtype);
    }

    // A sum of magnitudes is finite only if every element is; it costs one pass and no mask. It may overflow where all elements are finite.
    private static bool IsFinite(Tensor weight)
        => double.IsFinite(weight.abs().sum(ScalarType.Float32).ToDouble()) || weight.isfinite().all().ToBoolean();

    private static double Norm(Tensor tensor) => tensor.norm().ToDouble();
}
