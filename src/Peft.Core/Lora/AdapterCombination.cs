using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The arithmetic of combining adapters in one layer, as PEFT does it.</summary>
internal sealed class AdapterCombination(CombinationType type, CombinationOptions options)
{
    /// <summary>Whether ranks must be equal.</summary>
    public bool OnFactors => type is CombinationType.Linear or CombinationType.Ties or CombinationType.DareLinear or CombinationType.DareTies or CombinationType.MagnitudePrune;

    /// <summary>Whether a density is needed.</summary>
    public bool Prunes => type is not (CombinationType.Linear or CombinationType.Cat or CombinationType.Svd);

    /// <summary>The combined factors of a layer.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="parts">The adapters that have tensors here, with their weights.</param>
    /// <param name="rank">The rank wanted.</param>
    /// <returns>A and B in the shapes of the layer, in the current dispose scope.</returns>
    public (Tensor A, Tensor B) Combine(LoraLayer layer, IReadOnlyList<(LoraAdapter Adapter, double Weight)> parts, int rank)
    {
        if (type == CombinationType.Cat) return Side(parts, rank);
        if (!OnFactors) return BySvd(layer, parts, rank);
        // The root of the weight goes to both factors, its sign to one.
        double[] roots = [.. parts.Select(p => Math.Sqrt(Math.Abs(p.Weight * p.Adapter.Scaling)))];
        double[] signed = [.. parts.Select((p, i) => p.Weight * p.Adapter.Scaling >= 0 ? roots[i] : -roots[i])];
        var a = Merge(layer.ModulePath, "A", [.. parts.Select(p => (p.Adapter.Name, p.Adapter.A.detach()))], signed);
        var b = Merge(layer.ModulePath, "B", [.. parts.Select(p => (p.Adapter.Name, p.Adapter.B.detach()))], roots);
        return (a, b);
    }

    private static (Tensor, Tensor) Side(IReadOnlyList<(LoraAdapter Adapter, double Weight)> parts, int rank)
    {
        var a = cat(parts.Select(p => p.Adapter.A.detach() * (p.Weight * p.Adapter.Scaling)).ToList(), 0);
        var b = cat(parts.Select(p => p.Adapter.B.detach()).ToList(), 1);
        long missing = rank - a.shape[0];
        if (missing == 0) return (a, b);
        // A layer that some of the adapters leave out gets zeros for them.
        var below = zeros([missing, .. a.shape.Skip(1)], a.dtype, a.device);
        var beside = zeros([b.shape[0], missing, .. b.shape.Skip(2)], b.dtype, b.device);
        return (cat([a, below], 0), cat([b, beside], 1));
    }

    private (Tensor, Tensor) BySvd(LoraLayer layer, IReadOnlyList<(LoraAdapter Adapter, double Weight)> parts, int rank)
    {
        var deltas = parts.Select(p => (p.Adapter.Name, layer.DeltaWeight(p.Adapter.Name).MoveToCurrent().to(ScalarType.Float32))).ToList();
        var delta = Merge(layer.ModulePath, "delta", deltas, [.. parts.Select(p => p.Weight)]).flatten(1);
        if (layer is LoraEmbedding) delta = delta.t();
        var (u, s, vh) = linalg.svd(delta, fullMatrices: false);
        long kept = Math.Min(rank, s.shape[0]);
        var b = u.narrow(1, 0, kept) * s.narrow(0, 0, kept);
        var a = vh.narrow(0, 0, kept);
        if (kept < rank)
        {
            a = cat([a, zeros([rank - kept, a.shape[1]], a.dtype, a.device)], 0);
            b = cat([b, zeros([b.shape[0], rank - kept], b.dtype, b.device)], 1);
        }
        var like = parts[0].Adapter;
        return (a.reshape([rank, .. like.A.shape.Skip(1)]).to(like.A.dtype), b.reshape([like.B.shape[0], rank, .. like.B.shape.Skip(2)]).to(like.B.dtype));
    }

    private Tensor Merge(string module, string part, IReadOnlyList<(string Adapter, Tensor Values)> tensors, double[] weights)
    {
        var pruned = stack(tensors.Select(t => Prune(module, part, t.Adapter, t.Values)).ToList(), 0);
        var shape = new long[pruned.dim()];
        Array.Fill(shape, 1);
        shape[0] = weights.Length;
        var weighted = pruned * tensor(weights.Select(w => (float)w).ToArray()).to(pruned.device).view(shape);
        bool elects = type is CombinationType.Ties or CombinationType.TiesSvd or CombinationType.DareTies or CombinationType.DareTiesSvd;
        if (!elects) return weighted.sum(dim: 0L).to(pruned.dtype);
        var signs = pruned.sign();
        var vote = (options.MajoritySign == MajoritySign.Total ? pruned : signs).sum(dim: 0L);
        var kept = signs.eq(where(vote.ge(0), ones_like(vote), -ones_like(vote)));
        return ((weighted * kept).sum(dim: 0L) / kept.sum(dim: 0L).clamp(min: 1)).to(pruned.dtype);
    }

    private Tensor Prune(string module, string part, string adapter, Tensor values)
    {
        if (!Prunes || options.Density is not { } density || density >= 1) return values;
        if (type is CombinationType.DareLinear or CombinationType.DareTies or CombinationType.DareLinearSvd or CombinationType.DareTiesSvd)
        {
            var mask = options.Masks?.Draw(module, part, adapter, values, density).MoveToCurrent() ?? bernoulli(full_like(values, density));
            return values * mask.to(values.dtype) / density;
        }
        var kept = zeros_like(values).flatten();
        int count = (int)(density * values.numel());
        if (count > 0) kept.index_fill_(0, values.abs().flatten().topk(count).indexes, 1);
        return values * kept.view(values.shape);
    }
}
