using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A dense (out, in) weight as the right-hand side of a packed product.</summary>
internal static class DensePanels
{
    /// <summary>The panels.</summary>
    /// <param name="weight">(out, in).</param>
    /// <param name="inputDtype">The dtype of the left-hand side.</param>
    /// <param name="transposed">False for <c>x Wᵀ</c>, true for <c>g W</c>.</param>
    /// <returns>Null where the product is libtorch's.</returns>
    public static IPanelSource? Of(Tensor weight, ScalarType inputDtype, bool transposed)
    {
        if (inputDtype != weight.dtype || !CpuTensor.IsKernelReady(weight) || ProductChoice.For(inputDtype) != ProductEngine.Packed) return null;
        var memory = MatrixMemory.Of(weight);
        return transposed ? new ColumnPanels(memory) : new RowPanels(memory);
    }
}
