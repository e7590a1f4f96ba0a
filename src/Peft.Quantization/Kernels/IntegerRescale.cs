using System.Runtime.Intrinsics;
using Peft.Core;

namespace Peft.Quantization;

/// <summary>Scales integer sums back to floating point as they come: sum * (row maximum * column maximum) * step + bias, rounded to the target's dtype.</summary>
internal sealed unsafe class IntegerRescale(float* rowScales, float* columnScales, float step, float* bias, void* target, ElementKind kind, long width) : IIntegerSums
{
    public void Take(long row, int rows, long column, int columns, int* sums, long stride)
    {
        var factor = Vector256.Create(step);
        for (int r = 0; r < rows; r++, sums += stride)
        {
            var scale = Vector256.Create(rowScales[row + r]);
            long start = (row + r) * width + column;
            int j = 0;
            for (; j + 8 <= columns; j += 8)
            {
                var value = Vector256.ConvertToSingle(Vector256.Load(sums + j)) * (scale * Vector256.Load(columnScales + column + j)) * factor;
                if (bias is not null) value += Vector256.Load(bias + column + j);
                FloatElements.Store<Lanes256, Vector256<float>, Vector256<int>>(target, kind, start + j, value);
            }
            for (; j < columns; j++)
            {
                float value = sums[j] * (rowScales[row + r] * columnScales[column + j]) * step;
                if (bias is not null) value += bias[column + j];
                FloatElements.Store<Lanes1, float, int>(target, kind, start + j, value);
            }
        }
    }
}
