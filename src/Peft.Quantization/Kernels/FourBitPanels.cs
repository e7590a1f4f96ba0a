using System.Runtime.Intrinsics;
using Peft.Core;

namespace Peft.Quantization;

/// <summary>A 4-bit weight as the right-hand side of a packed product: its codes are expanded while panels are packed.</summary>
internal sealed unsafe class FourBitPanels(
    byte* packed, ScalePointers scales, long rows, long columns, int blockSize, FourBitTable table, ElementKind through, bool transposed)
    : DecodedPanels(rows, columns, transposed)
{
    private readonly long _columns = columns;

    public override void DecodeRow(long row, long first, int count, float* target)
    {
        float* products = stackalloc float[16];
        long position = row * _columns + first, stop = position + count;
        while (position < stop)
        {
            long block = position / blockSize;
            int n = (int)(Math.Min((block + 1) * blockSize, stop) - position);
            FourBitDecode<Lanes256, Vector256<float>, Vector256<int>>.Products(table.CodesPointer, scales.Of(block), through, ElementKind.Float32, products);
            int odd = (int)(position & 1);
            if (odd == 1) target[0] = products[packed[position / 2] & 15];
            NibbleLookup.Expand32<Lanes256>(packed + (position + odd) / 2, n - odd, products, target + odd);
            position += n;
            target += n;
        }
    }
}
