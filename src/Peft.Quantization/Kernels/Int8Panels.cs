using System.Runtime.Intrinsics;
using Peft.Core;

namespace Peft.Quantization;

/// <summary>A row-wise int8 weight as the right-hand side of a packed product; each value is rounded as decoding it to memory would.</summary>
internal sealed unsafe class Int8Panels(sbyte* codes, float* rowMaxima, long rows, long columns, ElementKind through, bool transposed)
    : DecodedPanels(rows, columns, transposed)
{
    private const float Step = (float)(1.0 / 127.0);
    private readonly long _columns = columns;

    public override void DecodeRow(long row, long first, int count, float* target)
    {
        sbyte* source = codes + row * _columns + first;
        float scale = rowMaxima[row] * Step;
        var factor = Vector256.Create(scale);
        int i = 0;
        for (; i + 8 <= count; i += 8)
        {
            var value = Lanes256.ToFloat(Lanes256.LoadSByte(source + i)) * factor;
            if (through == ElementKind.BFloat16) value = Rounding.ThroughBFloat16<Lanes256, Vector256<float>, Vector256<int>>(value);
            value.Store(target + i);
        }
        for (; i < count; i++)
        {
            float value = source[i] * scale;
            target[i] = through == ElementKind.BFloat16 ? Rounding.ThroughBFloat16<Lanes1, float, int>(value) : value;
        }
    }
}
