using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Quantization;

/// <summary>Expands packed nibbles (the high one first) through a table of sixteen entries.</summary>
internal static unsafe class NibbleLookup
{
    /// <summary>Entries of 16 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Expand16<L>(byte* packed, int count, ushort* table, ushort* target)
    {
        int i = 0;
        if (typeof(L) == typeof(Lanes512))
        {
            // vpermw looks at five bits of each index; with the table twice over, the fifth may hold anything.
            var half = Vector256.Load(table);
            var twice = Vector512.Create(half, half);
            for (; i <= count - 32; i += 32)
            {
                var bytes = Avx512F.ConvertToVector512UInt32(Vector128.Load(packed + i / 2));
                Avx512BW.PermuteVar32x16(twice, ((bytes >>> 4) | (bytes << 16)).AsUInt16()).Store(target + i);
            }
        }
        else if (typeof(L) == typeof(Lanes256))
        {
            Split(table, out var low, out var high);
            var lows = Vector256.Create(low, low);
            var highs = Vector256.Create(high, high);
            for (; i <= count - 32; i += 32)
            {
                var words = Avx2.ConvertToVector256Int16(packed + i / 2).AsUInt16();
                var index = ((words >>> 4) | ((words & Vector256.Create((ushort)15)) << 8)).AsByte();
                var first = Avx2.Shuffle(lows, index);
                var second = Avx2.Shuffle(highs, index);
                var even = Avx2.UnpackLow(first, second);
                var odd = Avx2.UnpackHigh(first, second);
                Avx2.Permute2x128(even, odd, 0x20).Store((byte*)(target + i));
                Avx2.Permute2x128(even, odd, 0x31).Store((byte*)(target + i + 16));
            }
        }
        else if (typeof(L) == typeof(Lanes128))
        {
            Split(table, out var low, out var high);
            for (; i <= count - 16; i += 16)
            {
                var words = Vector128.WidenLower(Vector128.CreateScalar(Unsafe.ReadUnaligned<ulong>(packed + i / 2)).AsByte());
                var index = ((words >>> 4) | ((words & Vector128.Create((ushort)15)) << 8)).AsByte();
                var first = Vector128.ShuffleNative(low, index);
                var second = Vector128.ShuffleNative(high, index);
                (Vector128.WidenLower(first) | (Vector128.WidenLower(second) << 8)).Store(target + i);
                (Vector128.WidenUpper(first) | (Vector128.WidenUpper(second) << 8)).Store(target + i + 8);
            }
        }
        for (; i < count; i++) target[i] = table[(i & 1) == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15];
    }

    /// <summary>Entries of 32 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Expand32<L>(byte* packed, int count, float* table, float* target)
    {
        int i = 0;
        if (typeof(L) == typeof(Lanes512))
        {
            var entries = Vector512.Load(table);
            for (; i <= count - 16; i += 16)
            {
                var bytes = Avx512F.ConvertToVector512Int64(Vector128.CreateScalar(Unsafe.ReadUnaligned<ulong>(packed + i / 2)).AsByte());
                Avx512F.PermuteVar16x32(entries, ((bytes >>> 4) | (bytes << 32)).AsInt32()).Store(target + i);
            }
        }
        else if (typeof(L) == typeof(Lanes256))
        {
            var low = Vector256.Load(table);
            var high = Vector256.Load(table + 8);
            for (; i <= count - 8; i += 8)
            {
                var bytes = Avx2.ConvertToVector256Int64(Vector128.CreateScalar(Unsafe.ReadUnaligned<uint>(packed + i / 2)).AsByte());
                var index = ((bytes >>> 4) | (bytes << 32)).AsInt32();
                var one = Avx2.PermuteVar8x32(low, index);
                var other = Avx2.PermuteVar8x32(high, index);
                Avx.BlendVariable(one, other, (index << 28).AsSingle()).Store(target + i);
            }
        }
        for (; i < count; i++) target[i] = table[(i & 1) == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15];
    }

    /// <summary>The low and the high bytes of the sixteen entries.</summary>
    private static void Split(ushort* table, out Vector128<byte> low, out Vector128<byte> high)
    {
        var first = Vector128.Load(table);
        var second = Vector128.Load(table + 8);
        low = Vector128.Narrow(first & Vector128.Create((ushort)0xFF), second & Vector128.Create((ushort)0xFF));
        high = Vector128.Narrow(first >>> 8, second >>> 8);
    }
}
