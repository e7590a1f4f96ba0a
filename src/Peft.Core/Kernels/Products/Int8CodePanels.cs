using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>int8 codes as they are, for products of integers.</summary>
internal sealed unsafe class Int8CodePanels(MatrixMemory codes) : DecodedPanels(codes.Rows, codes.Columns, transposed: false)
{
    public override void DecodeRow(long row, long first, int count, float* target) => Widen((sbyte*)codes.At(row, first), count, target);

    /// <summary>int8 to float32.</summary>
    internal static void Widen(sbyte* source, int count, float* target)
    {
        int i = 0;
        for (; i + 8 <= count; i += 8) Avx.ConvertToVector256Single(Avx2.ConvertToVector256Int32(source + i)).Store(target + i);
        for (; i < count; i++) target[i] = source[i];
    }
}
