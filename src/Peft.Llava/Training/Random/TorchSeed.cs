using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Seeds torch's own generator, the process's, and puts the state found back at the end.</summary>
internal sealed class TorchSeed : IDisposable
{
    private readonly Tensor _found = get_rng_state().DetachFromDisposeScope();

    /// <summary>Keeps the state as it is for what comes after the scope.</summary>
    public static IDisposable Keep() => new TorchSeed();

    public static IDisposable Use(long seed)
    {
        var scope = new TorchSeed();
        manual_seed(seed);
        return scope;
    }

    /// <summary>The present state, 5 KB.</summary>
    public static byte[] State()
    {
        using var state = get_rng_state();
        return state.data<byte>().ToArray();
    }

    /// <summary>Goes on from a recorded state.</summary>
    public static IDisposable Use(byte[] state)
    {
        var scope = new TorchSeed();
        using var recorded = tensor(state);
        set_rng_state(recorded);
        return scope;
    }

    public void Dispose()
    {
        set_rng_state(_found);
        _found.Dispose();
    }
}
