using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Spares a frozen tower the tiles it has seen: give it to <see cref="VisionTower.Cache"/>. What comes back is bit for bit what the tower gave
/// when it saw the tile first.
/// </summary>
/// <remarks>
/// A product of matrices may round a row otherwise when other rows stand beside it, so in bfloat16 the features of a tile can differ in the last
/// bit between batches of different size; with a cache they are the same in all epochs.
/// </remarks>
public sealed class FeatureCache
{
    private readonly string _tower;
    private readonly IFeatureStore _store;
    private long _hits;
    private long _misses;

    /// <summary>Creates a cache for a tower as it is now: its weights are read once.</summary>
    /// <param name="tower">The tower; it must stay frozen.</param>
    /// <param name="store">Where features are kept; not owned.</param>
    public FeatureCache(VisionTower tower, IFeatureStore store)
    {
        ArgumentNullException.ThrowIfNull(tower);
        ArgumentNullException.ThrowIfNull(store);
        _store = store;
        _tower = tower.Fingerprint();
    }

    /// <summary>Tiles whose features were there.</summary>
    public long Hits => Interlocked.Read(ref _hits);

    /// <summary>Tiles that the tower ran on.</summary>
    public long Misses => Interlocked.Read(ref _misses);

    /// <summary>Features of tiles.</summary>
    /// <param name="pixels">(tiles, 3, S, S).</param>
    /// <param name="run">The tower: (tiles, 3, S, S) to (tiles, P, Hv).</param>
    /// <returns>(tiles, P, Hv) on the pixels' device, in the current dispose scope.</returns>
    internal Tensor Apply(Tensor pixels, Func<Tensor, Tensor> run)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        int count = checked((int)pixels.shape[0]);
        var keys = Keys(pixels, count);
        var features = new Tensor?[count];
        for (int i = 0; i < count; i++) features[i] = Found(keys[i]);
        var missing = Enumerable.Range(0, count).Where(i => features[i] is null).ToArray();
        Interlocked.Add(ref _hits, count - missing.Length);
        Interlocked.Add(ref _misses, missing.Length);
        if (missing.Length > 0)
        {
            bool all = missing.Length == count;
            var made = run(all ? pixels : pixels.index_select(0, tensor([.. missing.Select(i => (long)i)], device: pixels.device)));
            for (int i = 0; i < missing.Length; i++)
            {
                features[missing[i]] = made[i];
                lock (_store) _store.Keep(keys[missing[i]], made[i].cpu());
            }
            if (all) return made.MoveToOuterDisposeScope();
        }
        return stack([.. features.Select(f => f!.to(pixels.device))]).MoveToOuterDisposeScope();
    }

    /// <summary>What the store has, as a tensor of the current dispose scope.</summary>
    private Tensor? Found(FeatureKey key)
    {
        lock (_store)
        {
            using var found = _store.Find(key);
            return found?.alias();
        }
    }

    private FeatureKey[] Keys(Tensor pixels, int count)
    {
        var local = pixels.detach().cpu();
        return [.. Enumerable.Range(0, count).Select(i =>
            new FeatureKey(_tower, TensorFingerprint.OfContent(new Dictionary<string, Tensor> { ["pixels"] = local[i].contiguous() })))];
    }
}
