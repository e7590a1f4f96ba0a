using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>Panels of a matrix that lies in memory row after row: the right-hand side of <c>g W</c>. Pieces of rows are copied, or widened.</summary>
internal sealed unsafe class ColumnPanels(MatrixMemory weight) : IPanelSource
{
    public long Depth => weight.Rows;

    public long Columns => weight.Columns;

    public void Fill(long firstColumn, int columns, long firstDepth, int depth, float* panels, int panelWidth, float* scratch)
    {
        int full = columns / panelWidth, rest = columns - full * panelWidth;
        long panelSize = (long)panelWidth * depth;
        for (int k = 0; k < depth; k++)
        {
            float* target = panels + (long)k * panelWidth;
            void* row = weight.At(firstDepth + k, firstColumn);
            if (weight.IsHalf)
            {
                ushort* source = (ushort*)row;
                for (int panel = 0; panel < full; panel++, source += panelWidth, target += panelSize)
                    for (int j = 0; j < panelWidth; j += 8) Half256.Load(source, j).Store(target + j);
                for (int j = 0; j < panelWidth && rest > 0; j++) target[j] = j < rest ? BFloat16Element.Get(source, j) : 0f;
            }
            else
            {
                float* source = (float*)row;
                for (int panel = 0; panel < full; panel++, source += panelWidth, target += panelSize)
                    for (int j = 0; j < panelWidth; j += 8) Vector256.Load(source + j).Store(target + j);
                for (int j = 0; j < panelWidth && rest > 0; j++) target[j] = j < rest ? source[j] : 0f;
            }
        }
    }
}
