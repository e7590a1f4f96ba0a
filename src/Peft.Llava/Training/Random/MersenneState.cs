using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>States of the Mersenne Twisters of Python and torch, in the forms of their own files.</summary>
internal static class MersenneState
{
    /// <summary>Words of a state.</summary>
    public const int Size = 624;

    private const int TorchBytes = 5056;

    /// <summary>What <c>random.seed(seed)</c> leaves: 624 words and the position after them. Matsumoto's <c>init_by_array</c> over the seed's 32-bit digits.</summary>
    public static uint[] OfPython(long seed)
    {
        ulong magnitude = seed < 0 ? (ulong)-(Int128)seed : (ulong)seed;
        uint[] key = magnitude > uint.MaxValue ? [(uint)magnitude, (uint)(magnitude >> 32)] : [(uint)magnitude];
        uint[] state = [.. new TorchRandom(19650218).State];
        int place = 1, digit = 0;
        for (int k = 0; k < Size; k++)
        {
            state[place] = unchecked((state[place] ^ (Mixed(state, place) * 1664525u)) + key[digit] + (uint)digit);
            Advance(state, ref place);
            digit = (digit + 1) % key.Length;
        }
        for (int k = 1; k < Size; k++)
        {
            state[place] = unchecked((state[place] ^ (Mixed(state, place) * 1566083941u)) - (uint)place);
            Advance(state, ref place);
        }
        state[0] = 0x80000000u;
        return state;
    }

    /// <summary>The bytes that <c>torch.get_rng_state()</c> gives for a stream.</summary>
    /// <param name="seed">The seed it began with.</param>
    /// <param name="stream">The stream.</param>
    public static byte[] ToTorch(long seed, TorchRandom stream)
    {
        var words = stream.State;
        uint next = words[Size];
        byte[] bytes = new byte[TorchBytes];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, seed);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), Size + 1 - next);     // how many are left, and one
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(12), 1);                  // it was seeded
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), next);
        for (int i = 0; i < Size; i++) BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(24 + 8 * i), words[i]);
        return bytes;
    }

    private static uint Mixed(uint[] state, int place) => state[place - 1] ^ (state[place - 1] >> 30);

    private static void Advance(uint[] state, ref int place)
    {
        if (++place < Size) return;
        state[0] = state[Size - 1];
        place = 1;
    }
}
