namespace Peft.Llava;

/// <summary>
/// The random numbers of torch's CPU generator (a Mersenne Twister), outside of torch: the same seed gives the same permutations and draws
/// as <c>torch.Generator().manual_seed(seed)</c>. A stream of its own for each purpose keeps them apart, and its whole state is a value.
/// </summary>
/// <remarks>After Matsumoto and Nishimura, "Mersenne Twister" (1998); seeded as torch does, by the low 32 bits of the seed.</remarks>
public sealed class TorchRandom
{
    private const int Size = 624;
    private const int Shift = 397;

    private readonly uint[] _state = new uint[Size];
    private int _next;

    /// <summary>Creates a stream from a seed.</summary>
    public TorchRandom(long seed)
    {
        _state[0] = unchecked((uint)seed);
        for (int i = 1; i < Size; i++) _state[i] = unchecked(1812433253u * (_state[i - 1] ^ (_state[i - 1] >> 30)) + (uint)i);
        _next = Size;
    }

    private TorchRandom(uint[] state, int next)
    {
        state.CopyTo(_state, 0);
        _next = next;
    }

    /// <summary>The whole state: 624 words and the position in them. Given to <see cref="Restore"/> it continues where it was taken.</summary>
    public IReadOnlyList<uint> State => [.. _state, (uint)_next];

    /// <summary>A stream that continues from a recorded <see cref="State"/>.</summary>
    /// <exception cref="TrainingOptionsException">The state does not have 625 words, or its position is outside of 0 to 624.</exception>
    public static TorchRandom Restore(IReadOnlyList<uint> state)
    {
        ArgumentNullException.ThrowIfNull(state);
        if (state.Count != Size + 1 || state[Size] > Size)
            throw new TrainingOptionsException([$"a random state has {Size + 1} words and ends in a position up to {Size}; this one has "
                + $"{state.Count} words{(state.Count > 0 ? $" and ends in {state[^1]}" : "")}: take it from the checkpoint as it was written"]);
        return new TorchRandom([.. state.Take(Size)], (int)state[Size]);
    }

    /// <summary>The next 32 random bits.</summary>
    public uint NextUInt32()
    {
        if (_next == Size) Twist();
        uint y = _state[_next++];
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680u;
        y ^= (y << 15) & 0xefc60000u;
        return y ^ (y >> 18);
    }

    /// <summary>The next value of <c>torch.empty((), dtype=torch.int64).random_()</c>: 0 to 2^63 - 1.</summary>
    public long NextInt64()
    {
        ulong high = NextUInt32();
        return (long)(((high << 32) | NextUInt32()) & long.MaxValue);
    }

    /// <summary>A permutation of 0 to <paramref name="count"/> - 1, equal to <c>torch.randperm(count, generator=…)</c>.</summary>
    public int[] Permutation(int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        var result = new int[count];
        for (int i = 0; i < count; i++) result[i] = i;
        for (int i = 0; i < count - 1; i++)
        {
            int other = i + (int)(NextUInt32() % (uint)(count - i));
            (result[i], result[other]) = (result[other], result[i]);
        }
        return result;
    }

    private void Twist()
    {
        for (int i = 0; i < Size; i++)
        {
            uint y = (_state[i] & 0x80000000u) | (_state[(i + 1) % Size] & 0x7fffffffu);
            _state[i] = _state[(i + Shift) % Size] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908b0dfu : 0);
        }
        _next = 0;
    }
}
