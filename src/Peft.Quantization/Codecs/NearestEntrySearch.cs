namespace Peft.Quantization;

/// <summary>
/// Finds the number of midpoints below a value without a search: the leading bits of the float select a cell of a small table, which
/// gives the count at the cell's lower end; few comparisons (one, for the dynamic maps) with the next midpoint finish it.
/// </summary>
/// <remarks>
/// A cell is one sign, one exponent and a few bits of the mantissa; all magnitudes below 2^-24 share one. Where no cell holds two midpoints, a
/// cell's count and the rest of its midpoint's mantissa fit into one integer (<see cref="Entries"/>), so that one look-up does the work of two.
/// </remarks>
internal sealed class NearestEntrySearch
{
    private const int SmallestExponent = 127 - 24;

    private readonly float[] _midpoints;
    private readonly byte[] _table;
    private readonly int[]? _entries;

    public NearestEntrySearch(float[] midpoints)
    {
        _midpoints = midpoints;
        byte[] best = [];
        for (int bits = 5; bits <= 8; bits++)
        {
            best = Build(bits, out int comparisons);
            (MantissaBits, Comparisons) = (bits, comparisons);
            if (comparisons <= 1) break;
        }
        _table = GC.AllocateArray<byte>(best.Length + 3, pinned: true);      // a gather reads four bytes
        best.CopyTo(_table, 0);
        _entries = Comparisons <= 1 ? BuildEntries() : null;
    }

    /// <summary>Bits of the mantissa in a cell's number.</summary>
    public int MantissaBits { get; }

    /// <summary>Comparisons that any value needs at most.</summary>
    public int Comparisons { get; }

    /// <summary>How far the bits of |value| are shifted right to give a cell.</summary>
    public int Shift => 23 - MantissaBits;

    /// <summary>Subtracted from the shifted bits.</summary>
    public int FirstCell => SmallestExponent << MantissaBits;

    /// <summary>Cells of one sign; those of negative values follow those of positive ones.</summary>
    public int Cells => CellsOf(MantissaBits);

    public unsafe byte* Table => Pinned.Pointer(_table);

    /// <summary>
    /// By cell: in the high byte the count of a value whose mantissa below the cell's bits is at most the low 24 bits of the entry; where that is
    /// greater the count is one more, or for a negative value one less. Null if a cell holds more than one midpoint, or the smallest cell holds one.
    /// </summary>
    public unsafe int* Entries => _entries is null ? null : Pinned.Pointer(_entries);

    /// <summary>The number of midpoints below a value, by binary search; NaN counts as above all.</summary>
    public int Find(float value)
    {
        int low = 0, high = 255;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (!(value <= _midpoints[middle])) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    private byte[] Build(int bits, out int comparisons)
    {
        int cells = CellsOf(bits);
        var table = new byte[2 * cells];
        comparisons = 0;
        for (int cell = 0; cell < cells; cell++)
        {
            var (low, high) = Bounds(cell, bits);
            table[cell] = (byte)Find(low);
            table[cells + cell] = (byte)Find(-high);
            comparisons = Math.Max(comparisons, Math.Max(Find(high) - table[cell], Find(-low) - table[cells + cell]));
        }
        return table;
    }

    private int[]? BuildEntries()
    {
        int rest = (1 << Shift) - 1;
        var entries = GC.AllocateArray<int>(2 * Cells, pinned: true);
        for (int cell = 0; cell < Cells; cell++)
        {
            var (low, high) = Bounds(cell, MantissaBits);
            int above = _table[cell], below = _table[Cells + cell];
            bool splitAbove = Find(high) > above, splitBelow = Find(-low) > below;
            if (cell == 0 && (splitAbove || splitBelow)) return null;
            entries[cell] = (above << 24) | (splitAbove ? Mantissa(_midpoints[above]) & rest : rest);
            // A negative value is above its midpoint while its magnitude is below: one entry more, unless the mantissa is greater.
            entries[Cells + cell] = splitBelow ? ((below + 1) << 24) | ((Mantissa(_midpoints[below]) & rest) - 1) : (below << 24) | rest;
        }
        return entries;
    }

    private static int CellsOf(int bits) => ((127 - SmallestExponent) << bits) + 1;

    /// <summary>The least and the greatest magnitude of a cell.</summary>
    private static (float Low, float High) Bounds(int cell, int bits)
    {
        int place = cell + (SmallestExponent << bits);
        return (cell == 0 ? 0f : BitConverter.Int32BitsToSingle(place << (23 - bits)),
            cell == CellsOf(bits) - 1 ? 2f : BitConverter.Int32BitsToSingle(((place + 1) << (23 - bits)) - 1));
    }

    private static int Mantissa(float value) => BitConverter.SingleToInt32Bits(value) & 0x7FFFFF;
}
