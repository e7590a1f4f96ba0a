using System.Collections.Concurrent;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// The dropout masks of a training, a random stream of their own: each mask is a function of the seed, the step, the micro-batch, the layer and,
/// where several adapters act on a layer, the use. Nobody else's draws can move it, and the step's number is all of its state.
/// </summary>
/// <remarks>
/// A layer that gradient checkpointing runs again in the backward pass gets the masks of its first run: <see cref="Replay"/> starts the count of
/// uses anew. The numbers are mixed by the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
/// </remarks>
/// <param name="seed">The training's seed.</param>
/// <param name="rank">The process's number: processes that train together draw masks of their own.</param>
public sealed class TrainingDropout(long seed, int rank = 0) : IDropoutSource
{
    // Keeps this stream apart from others that start at the same seed.
    private const ulong Stream = 0x64726f706f757431;

    private readonly ConcurrentDictionary<string, int> _uses = new(StringComparer.Ordinal);
    private ulong _place = Mix(Stream);

    /// <summary>Goes to a micro-batch.</summary>
    /// <param name="step">The step, from 1.</param>
    /// <param name="microBatch">The micro-batch within it, from 0.</param>
    public void Begin(int step, int microBatch)
    {
        _place = Mix(Mix(Mix(Mix(Stream ^ (ulong)seed) + (ulong)rank) + (ulong)step) + (ulong)microBatch);
        _uses.Clear();
    }

    /// <summary>Between forward and backward: layers that run again get the same masks again.</summary>
    public void Replay() => _uses.Clear();

    /// <inheritdoc/>
    public IDropoutMask Draw(string module, Tensor input, double probability)
    {
        ArgumentNullException.ThrowIfNull(module);
        int use = _uses.AddOrUpdate(module, 0, (_, n) => n + 1);
        return SeededDropout.MaskOf(Mix(Mix(_place ^ Hash(module)) + (ulong)use), probability);
    }

    // FNV-1a over UTF-16: the same in every process.
    private static ulong Hash(string text)
    {
        ulong hash = 0xcbf29ce484222325;
        foreach (char c in text) hash = unchecked((hash ^ c) * 0x100000001b3);
        return hash;
    }

    private static ulong Mix(ulong x) => SplitMix64.Finalise(unchecked(x + SplitMix64.Gamma));
}
