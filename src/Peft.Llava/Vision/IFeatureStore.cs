using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Where cached features are kept. A <see cref="FeatureCache"/> lets one thread at a time use it.</summary>
public interface IFeatureStore
{
    /// <summary>Finds features.</summary>
    /// <param name="key">The tower and the tile.</param>
    /// <returns>(P, Hv) on the CPU, detached from dispose scopes; the caller disposes it. Null if they are not there.</returns>
    Tensor? Find(FeatureKey key);

    /// <summary>Keeps features; a store that is full keeps none.</summary>
    /// <param name="key">The tower and the tile.</param>
    /// <param name="features">(P, Hv) on the CPU; copied.</param>
    void Keep(FeatureKey key, Tensor features);
}
