namespace Peft.Llava;

/// <summary>Which samples an epoch takes, where that is not each of them once.</summary>
public interface IEpochSampling
{
    /// <summary>Samples of every epoch.</summary>
    int SamplesPerEpoch { get; }

    /// <summary>What decides the draws beside the seed, in words: a run is resumed with the same only.</summary>
    string Rule { get; }

    /// <summary>The samples of an epoch. The same epoch and seed always give the same.</summary>
    /// <param name="epoch">The epoch, from 0.</param>
    /// <param name="seed">The training seed.</param>
    /// <returns><see cref="SamplesPerEpoch"/> sample numbers, of which some may be equal.</returns>
    int[] Draw(int epoch, long seed);
}
