using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Keeps features in memory until a limit is reached, and those of later tiles not at all: epochs go through the data in turn, so throwing out
/// the oldest would throw out what is needed next.
/// </summary>
/// <param name="maximumBytes">The limit.</param>
public sealed class MemoryFeatureStore(long maximumBytes) : IFeatureStore, IDisposable
{
    private readonly Dictionary<FeatureKey, Tensor> _features = [];

    /// <summary>Bytes kept.</summary>
    public long Bytes { get; private set; }

    /// <summary>Tiles kept.</summary>
    public int Count => _features.Count;

    /// <inheritdoc/>
    public Tensor? Find(FeatureKey key) => _features.TryGetValue(key, out var found) ? found.alias().DetachFromDisposeScope() : null;

    /// <inheritdoc/>
    public void Keep(FeatureKey key, Tensor features)
    {
        ArgumentNullException.ThrowIfNull(features);
        long bytes = features.numel() * features.element_size();
        if (Bytes + bytes > maximumBytes || _features.ContainsKey(key)) return;
        _features.Add(key, features.clone().DetachFromDisposeScope());
        Bytes += bytes;
    }

    /// <summary>Frees the features.</summary>
    public void Dispose()
    {
        foreach (var features in _features.Values) features.Dispose();
        _features.Clear();
        Bytes = 0;
    }
}
