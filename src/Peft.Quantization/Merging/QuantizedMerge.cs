using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>Merges adapters that were trained on a quantised base. Sums are made in fp32, whatever the target.</summary>
public static class QuantizedMerge
{
    /// <summary>
    /// Merges adapters for good and removes them. With a dense target every quantised layer of the model becomes a <see cref="DenseFrozenLinear"/>,
    /// those without an adapter too.
    /// </summary>
    /// <param name="peft">The adapters; of no use afterwards.</param>
    /// <param name="target">Where they are merged into.</param>
    /// <param name="dtype">The dtype of dense weights.</param>
    /// <param name="original">
    /// For <see cref="MergeTarget.OriginalBase"/>: the original (out, in) weight of a layer by its path in memory, fresh; disposed here.
    /// </param>
    /// <param name="adapters">The adapters in order, or null for the active ones.</param>
    /// <returns>What was merged where, with the share of each layer's change that the target's form ate.</returns>
    /// <exception cref="MergeTargetException">There is no original, or no quantised layer.</exception>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="NonFiniteWeightsException">The merged weights would hold NaN or infinity; nothing has changed.</exception>
    public static MergeReport MergeAndUnload(
        this PeftModel peft, MergeTarget target, ScalarType dtype = ScalarType.BFloat16, Func<string, Tensor>? original = null,
        IReadOnlyList<string>? adapters = null)
    {
        ArgumentNullException.ThrowIfNull(peft);
        if (target == MergeTarget.OriginalBase && original is null)
            throw new MergeTargetException("Merging into the original base needs its weights: pass a function that gives a layer's weight by its path, or choose DequantizedBase.");
        var model = peft.BaseModel;
        var layers = Quantized(model).ToList();
        if (layers.Count == 0)
            throw new MergeTargetException("The model has no quantised layer, so there is no choice of target: call MergeAndUnload without one.");
        foreach (var (path, layer) in layers)
        {
            Func<Tensor>? own = target == MergeTarget.OriginalBase ? () => original!(path) : null;
            SetStandIn(layer, new MergeStandIn(target == MergeTarget.Requantized ? null : dtype, own));
        }
        try
        {
            var report = peft.MergeAndUnload(adapters, safe: false);
            if (target != MergeTarget.Requantized) MakeDense(model, dtype);
            return report;
        }
        finally
        {
            foreach (var (_, layer) in layers) SetStandIn(layer, null);
        }
    }

    /// <summary>Makes every quantised layer of a model dense: the decoded weights.</summary>
    /// <param name="model">The model; its layers are replaced in place.</param>
    /// <param name="dtype">The dtype of the dense weights.</param>
    /// <returns>How many layers were replaced.</returns>
    public static int Dequantize(nn.Module model, ScalarType dtype)
    {
        ArgumentNullException.ThrowIfNull(model);
        return MakeDense(model, dtype);
    }

    private static int MakeDense(nn.Module model, ScalarType dtype)
    {
        var layers = Quantized(model).ToList();
        foreach (var (path, layer) in layers)
        {
            var dense = new DenseFrozenLinear(layer.MaterializeWeight(dtype), layer.BiasTensor?.detach().clone().DetachFromDisposeScope(), layer.GetName());
            ModuleTree.Replace(model, path, dense);
            SetStandIn(layer, null);
            layer.Dispose();
        }
        return layers.Count;
    }

    /// <summary>The quantised layers by the path they have, or will have again, without adapters.</summary>
    private static IEnumerable<(string Path, FrozenLinear Layer)> Quantized(nn.Module model)
    {
        const string inside = ".base_layer";
        foreach (var (path, module) in ModuleTree.Modules(model))
        {
            if (module is not (FourBitLinear or Int8Linear)) continue;
            yield return (path.EndsWith(inside, StringComparison.Ordinal) ? path[..^inside.Length] : path, (FrozenLinear)module);
        }
    }

    private static void SetStandIn(FrozenLinear layer, MergeStandIn? standIn)
    {
        switch (layer)
        {
            case FourBitLinear fourBit:
                fourBit.StandIn?.Forget();
                fourBit.StandIn = standIn;
                break;
            case Int8Linear int8:
                int8.StandIn?.Forget();
                int8.StandIn = standIn;
                break;
        }
    }
}
