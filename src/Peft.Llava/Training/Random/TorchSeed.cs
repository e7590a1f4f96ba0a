using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Seeds torch's own generator, which dropout draws from, and puts the state found back at the end.</summary>
internal sealed class TorchSeed : IDisposable
{
    private readonly Tensor _found = get_rng_state().DetachFromDisposeScope();

    private TorchSeed(long seed) => manual_seed(seed);

    public static IDisposable Use(long seed) => new TorchSeed(seed);

    public void Dispose()
    {
        set_rng_state(_found);
        _found.Dispose();
    }
}
