using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>What a product's operand is made of.</summary>
public enum MatrixElement
{
    /// <summary>float32.</summary>
    Single,

    /// <summary>bfloat16.</summary>
    BFloat16,

    /// <summary>int8.</summary>
    Int8,
}

/// <summary>A matrix in memory, row after row: what the packed product reads. The tensor behind it must outlive it.</summary>
/// <param name="Data">The first element.</param>
/// <param name="Rows">Its rows.</param>
/// <param name="Columns">Its columns, which lie side by side.</param>
/// <param name="Stride">Elements from one row to the next.</param>
/// <param name="Element">The elements' type.</param>
public readonly unsafe record struct MatrixMemory(nint Data, long Rows, long Columns, long Stride, MatrixElement Element)
{
    /// <summary>Whether elements are bfloat16.</summary>
    public bool IsHalf => Element == MatrixElement.BFloat16;

    /// <summary>The memory of a contiguous CPU tensor, all dimensions but the last taken as rows.</summary>
    /// <param name="tensor">float32, bfloat16 or int8.</param>
    /// <returns>Valid while the tensor lives.</returns>
    /// <exception cref="ArgumentException">The tensor is of another dtype, elsewhere or not contiguous.</exception>
    public static MatrixMemory Of(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        long columns = tensor.shape[^1];
        return new((nint)CpuTensor.Pointer(tensor), columns == 0 ? 0 : tensor.numel() / columns, columns, columns, ElementOf(tensor.dtype));
    }

    /// <summary>A part of the matrix.</summary>
    /// <param name="row">Its first row.</param>
    /// <param name="rows">Its rows.</param>
    /// <param name="column">Its first column.</param>
    /// <param name="columns">Its columns.</param>
    public MatrixMemory Part(long row, long rows, long column, long columns) => this with { Data = (nint)At(row, column), Rows = rows, Columns = columns };

    /// <summary>The address of an element.</summary>
    /// <param name="row">Its row.</param>
    /// <param name="column">Its column.</param>
    public void* At(long row, long column) => (byte*)Data + (row * Stride + column) * Size;

    private int Size => Element switch
    {
        MatrixElement.Single => 4,
        MatrixElement.BFloat16 => 2,
        _ => 1,
    };

    private static MatrixElement ElementOf(ScalarType dtype) => dtype switch
    {
        ScalarType.Float32 => MatrixElement.Single,
        ScalarType.BFloat16 => MatrixElement.BFloat16,
        ScalarType.Int8 => MatrixElement.Int8,
        _ => throw new ArgumentException($"The packed product takes float32, bfloat16 and int8, not {dtype}. Convert the tensor, or use libtorch's product."),
    };
}
