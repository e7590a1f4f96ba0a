using System.Runtime.CompilerServices;

namespace Peft.Quantization;

/// <summary>The nearest entry of an 8-bit map, for a vector of values.</summary>
internal readonly unsafe struct NearestEntry<L, F, I>
    where L : struct, ILanes<F, I>
{
    private readonly byte* _table;
    private readonly int* _entries;
    private readonly float* _midpoints;
    private readonly int _shift;
    private readonly int _comparisons;
    private readonly I _first;
    private readonly I _lastCell;
    private readonly I _cells;
    private readonly I _rest;

    public NearestEntry(EightBitMap map)
    {
        var search = map.Search;
        _table = search.Table;
        _entries = search.Entries;
        _midpoints = map.MidpointsPointer;
        _shift = search.Shift;
        _comparisons = search.Comparisons;
        _first = L.Broadcast(search.FirstCell);
        _lastCell = L.Broadcast(search.Cells - 1);
        _cells = L.Broadcast(search.Cells);
        _rest = L.Broadcast((1 << search.Shift) - 1);
    }

    /// <summary>The codes of finite values within about [-1, 1].</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public I Find(F value)
    {
        var bits = L.AsInt(value);
        var cell = L.Subtract(L.ShiftRight(L.And(bits, L.Broadcast(0x7FFFFFFF)), _shift), _first);
        cell = L.Min(L.Max(cell, L.Broadcast(0)), _lastCell);
        var negative = L.GreaterThan(L.Broadcast(0), bits);
        cell = L.Add(cell, L.And(negative, _cells));
        if (_entries is not null)
        {
            var entry = L.Gather(_entries, cell);
            var beyond = L.GreaterThan(L.And(bits, _rest), L.And(entry, L.Broadcast(0xFFFFFF)));
            // -1 where beyond: taken away for positive values, added for negative ones.
            return L.Add(L.ShiftRight(entry, 24), L.Select(negative, beyond, L.And(beyond, L.Broadcast(1))));
        }
        var code = L.Gather(_table, cell);
        for (int i = 0; i < _comparisons; i++) code = L.Subtract(code, L.GreaterThan(value, L.Gather(_midpoints, code)));
        return code;
    }
}

/// <summary>8-bit block-wise quantisation.</summary>
internal readonly unsafe struct BlockwiseEncode<L, F, I>(
    void* source, ElementKind kind, long count, int blockSize, EightBitMap map, byte* codes, float* absmax) : IBlockJob
    where L : struct, ILanes<F, I>
{
    public void Run(long first, long end)
    {
        float* scratch = stackalloc float[blockSize + 16];
        for (long block = first; block < end; block++)
        {
            long start = block * blockSize;
            int n = (int)Math.Min(blockSize, count - start);
            int padded = (n + 15) & ~15;
            FloatElements.ToFloat<L, F, I>(source, kind, start, n, scratch, padded);
            absmax[block] = Encode(scratch, n, padded, n == blockSize, map, codes + start);
        }
    }

    /// <summary>Encodes one block; <paramref name="values"/> is overwritten with the scaled values.</summary>
    /// <returns>The block's maximum as it is stored.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Encode(float* values, int n, int padded, bool full, EightBitMap map, byte* codes)
    {
        float maximum = BlockMaximum.Of<L, F, I>(values, padded);
        float scale = BlockMaximum.Guard(maximum, full: false);
        F factor = L.Broadcast(full ? 1f / scale : scale);
        if (!float.IsFinite(maximum))
        {
            for (int j = 0; j < n; j++) codes[j] = (byte)map.Search.Find(full ? values[j] * (1f / scale) : values[j] / scale);
            return maximum;
        }
        var nearest = new NearestEntry<L, F, I>(map);
        int i = 0;
        for (; i <= n - L.Count; i += L.Count)
        {
            F value = L.Load(values + i);
            L.StoreByte(codes + i, nearest.Find(full ? L.Multiply(value, factor) : L.Divide(value, factor)));
        }
        for (; i < n; i++) codes[i] = (byte)map.Search.Find(full ? values[i] * (1f / scale) : values[i] / scale);
        return BlockMaximum.Guard(maximum, full);
    }
}

/// <summary>8-bit block-wise decoding: map[code] * maximum + offset.</summary>
internal readonly unsafe struct BlockwiseDecode<L, F, I>(
    byte* codes, float* absmax, long count, int blockSize, EightBitMap map, float offset, void* target, ElementKind kind) : IBlockJob
    where L : struct, ILanes<F, I>
{
    public void Run(long first, long end)
    {
        float* values = map.ValuesPointer;
        F add = L.Broadcast(offset);
        for (long block = first; block < end; block++)
        {
            long start = block * blockSize, stop = Math.Min(count, start + blockSize), i = start;
            F factor = L.Broadcast(absmax[block]);
            for (; i <= stop - L.Count; i += L.Count)
            {
                F value = L.Multiply(L.Gather(values, L.LoadByte(codes + i)), factor);
                FloatElements.Store<L, F, I>(target, kind, i, offset == 0f ? value : L.Add(value, add));
            }
            for (; i < stop; i++)
            {
                float value = values[codes[i]] * absmax[block];
                FloatElements.Store<Lanes1, float, int>(target, kind, i, offset == 0f ? value : value + offset);
            }
        }
    }
}
