using System.Runtime.CompilerServices;

namespace Peft.Quantization;

/// <summary>The scale of one block, from either form of statistics.</summary>
internal readonly unsafe struct ScalePointers(float* absmax, byte* codes, float* nested, float offset)
{
    private readonly float* _map = EightBitMap.DynamicSigned.ValuesPointer;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Of(long block)
        => codes is null ? absmax[block] : _map[codes[block]] * nested[block / BlockScales.NestedBlockSize] + offset;
}

/// <summary>4-bit decoding: the sixteen products code * scale are rounded once per block, then every value is a table look-up.</summary>
internal readonly unsafe struct FourBitDecode<L, F, I>(
    byte* packed, ScalePointers scales, long count, int blockSize, FourBitTable table, ElementKind through, void* target, ElementKind kind) : IBlockJob
    where L : struct, ILanes<F, I>
{
    public void Run(long first, long end)
    {
        byte* products = stackalloc byte[64];
        for (long block = first; block < end; block++)
        {
            long start = block * blockSize;
            int n = (int)Math.Min(blockSize, count - start);
            Products(table.CodesPointer, scales.Of(block), through, kind, products);
            byte* codes = packed + start / 2;
            if (kind == ElementKind.Float32) NibbleLookup.Expand32<L>(codes, n, (float*)products, (float*)target + start);
            else NibbleLookup.Expand16<L>(codes, n, (ushort*)products, (ushort*)target + start);
        }
    }

    /// <summary>code * scale for all sixteen codes, rounded to <paramref name="through"/> and stored as <paramref name="kind"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Products(float* codes, float scale, ElementKind through, ElementKind kind, void* products)
    {
        F factor = L.Broadcast(scale);
        for (int i = 0; i < 16; i += L.Count)
        {
            F value = L.Multiply(L.Load(codes + i), factor);
            if (through != kind)
            {
                if (through == ElementKind.BFloat16) value = Rounding.ThroughBFloat16<L, F, I>(value);
                else if (through == ElementKind.Float16) value = Rounding.ThroughFloat16<L, F, I>(value);
            }
            FloatElements.Store<L, F, I>(products, kind, i, value);
        }
    }
}
