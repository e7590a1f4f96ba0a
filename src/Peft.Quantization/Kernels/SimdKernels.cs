using System.Runtime.Intrinsics;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The C# kernels at one level: the only place where a level becomes a vector width.</summary>
internal sealed unsafe class SimdKernels(KernelLevel level) : IQuantizedKernels
{
    /// <inheritdoc/>
    public void EncodeFourBit(Tensor source, FourBitTable table, int blockSize, Tensor packed, Tensor absmax)
    {
        var (kind, count) = (FloatElements.KindOf(source.dtype), source.numel());
        void* from = CpuTensor.Pointer(source);
        byte* to = (byte*)CpuTensor.Pointer(packed);
        float* maxima = (float*)CpuTensor.Pointer(absmax);
        long blocks = (count + blockSize - 1) / blockSize;
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new FourBitEncode<Lanes512, Vector512<float>, Vector512<int>>(from, kind, count, blockSize, table, to, maxima), blocks, blockSize); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new FourBitEncode<Lanes256, Vector256<float>, Vector256<int>>(from, kind, count, blockSize, table, to, maxima), blocks, blockSize); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new FourBitEncode<Lanes128, Vector128<float>, Vector128<int>>(from, kind, count, blockSize, table, to, maxima), blocks, blockSize); break;
            default: ParallelBlocks.Run(new FourBitEncode<Lanes1, float, int>(from, kind, count, blockSize, table, to, maxima), blocks, blockSize); break;
        }
        KeepAlive(source, packed, absmax);
    }

    /// <inheritdoc/>
    public void DecodeFourBit(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, ScalarType through, Tensor target)
    {
        var (kind, via, count) = (FloatElements.KindOf(target.dtype), FloatElements.KindOf(through), target.numel());
        byte* from = (byte*)CpuTensor.Pointer(packed);
        void* to = CpuTensor.Pointer(target);
        var blockScales = Pointers(scales);
        long blocks = (count + blockSize - 1) / blockSize;
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new FourBitDecode<Lanes512, Vector512<float>, Vector512<int>>(from, blockScales, count, blockSize, table, via, to, kind), blocks, blockSize); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new FourBitDecode<Lanes256, Vector256<float>, Vector256<int>>(from, blockScales, count, blockSize, table, via, to, kind), blocks, blockSize); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new FourBitDecode<Lanes128, Vector128<float>, Vector128<int>>(from, blockScales, count, blockSize, table, via, to, kind), blocks, blockSize); break;
            default: ParallelBlocks.Run(new FourBitDecode<Lanes1, float, int>(from, blockScales, count, blockSize, table, via, to, kind), blocks, blockSize); break;
        }
        KeepAlive(packed, scales.Absmax, scales.NestedAbsmax, target);
    }

    /// <inheritdoc/>
    public void MultiplyFourBit(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, ScalarType through, Tensor input, Tensor target)
    {
        var (via, columns, rows) = (FloatElements.KindOf(through), input.numel(), target.numel());
        byte* codes = (byte*)CpuTensor.Pointer(packed);
        var blockScales = Pointers(scales);
        float* x = (float*)CpuTensor.Pointer(input);
        float* y = (float*)CpuTensor.Pointer(target);
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new FourBitMultiply<Lanes512, Vector512<float>, Vector512<int>>(codes, blockScales, columns, blockSize, table, via, x, y), rows, columns); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new FourBitMultiply<Lanes256, Vector256<float>, Vector256<int>>(codes, blockScales, columns, blockSize, table, via, x, y), rows, columns); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new FourBitMultiply<Lanes128, Vector128<float>, Vector128<int>>(codes, blockScales, columns, blockSize, table, via, x, y), rows, columns); break;
            default: ParallelBlocks.Run(new FourBitMultiply<Lanes1, float, int>(codes, blockScales, columns, blockSize, table, via, x, y), rows, columns); break;
        }
        KeepAlive(packed, scales.Absmax, scales.NestedAbsmax, input, target);
    }

    /// <inheritdoc/>
    public void EncodeBlockwise(Tensor source, EightBitMap map, int blockSize, Tensor codes, Tensor absmax)
    {
        var (kind, count) = (FloatElements.KindOf(source.dtype), source.numel());
        void* from = CpuTensor.Pointer(source);
        byte* to = (byte*)CpuTensor.Pointer(codes);
        float* maxima = (float*)CpuTensor.Pointer(absmax);
        long blocks = (count + blockSize - 1) / blockSize;
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new BlockwiseEncode<Lanes512, Vector512<float>, Vector512<int>>(from, kind, count, blockSize, map, to, maxima), blocks, blockSize); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new BlockwiseEncode<Lanes256, Vector256<float>, Vector256<int>>(from, kind, count, blockSize, map, to, maxima), blocks, blockSize); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new BlockwiseEncode<Lanes128, Vector128<float>, Vector128<int>>(from, kind, count, blockSize, map, to, maxima), blocks, blockSize); break;
            default: ParallelBlocks.Run(new BlockwiseEncode<Lanes1, float, int>(from, kind, count, blockSize, map, to, maxima), blocks, blockSize); break;
        }
        KeepAlive(source, codes, absmax);
    }

    /// <inheritdoc/>
    public void DecodeBlockwise(Tensor codes, Tensor absmax, EightBitMap map, int blockSize, float offset, Tensor target)
    {
        var (kind, count) = (FloatElements.KindOf(target.dtype), target.numel());
        byte* from = (byte*)CpuTensor.Pointer(codes);
        float* maxima = (float*)CpuTensor.Pointer(absmax);
        void* to = CpuTensor.Pointer(target);
        long blocks = (count + blockSize - 1) / blockSize;
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new BlockwiseDecode<Lanes512, Vector512<float>, Vector512<int>>(from, maxima, count, blockSize, map, offset, to, kind), blocks, blockSize); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new BlockwiseDecode<Lanes256, Vector256<float>, Vector256<int>>(from, maxima, count, blockSize, map, offset, to, kind), blocks, blockSize); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new BlockwiseDecode<Lanes128, Vector128<float>, Vector128<int>>(from, maxima, count, blockSize, map, offset, to, kind), blocks, blockSize); break;
            default: ParallelBlocks.Run(new BlockwiseDecode<Lanes1, float, int>(from, maxima, count, blockSize, map, offset, to, kind), blocks, blockSize); break;
        }
        KeepAlive(codes, absmax, target);
    }

    /// <inheritdoc/>
    public void EncodeRows(Tensor source, float threshold, Tensor codes, Tensor absmax, Tensor? outlierColumns)
    {
        var (kind, rows, columns) = (FloatElements.KindOf(source.dtype), source.shape[0], source.shape[1]);
        void* from = CpuTensor.Pointer(source);
        sbyte* to = (sbyte*)CpuTensor.Pointer(codes);
        float* maxima = (float*)CpuTensor.Pointer(absmax);
        byte* outliers = outlierColumns is null ? null : (byte*)CpuTensor.Pointer(outlierColumns);
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new RowsEncode<Lanes512, Vector512<float>, Vector512<int>>(from, kind, columns, threshold, to, maxima, outliers), rows, columns); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new RowsEncode<Lanes256, Vector256<float>, Vector256<int>>(from, kind, columns, threshold, to, maxima, outliers), rows, columns); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new RowsEncode<Lanes128, Vector128<float>, Vector128<int>>(from, kind, columns, threshold, to, maxima, outliers), rows, columns); break;
            default: ParallelBlocks.Run(new RowsEncode<Lanes1, float, int>(from, kind, columns, threshold, to, maxima, outliers), rows, columns); break;
        }
        KeepAlive(source, codes, absmax, outlierColumns);
    }

    /// <inheritdoc/>
    public void DecodeRows(Tensor codes, Tensor absmax, bool scaleFirst, Tensor target)
    {
        var (kind, rows, columns) = (FloatElements.KindOf(target.dtype), codes.shape[0], codes.shape[1]);
        sbyte* from = (sbyte*)CpuTensor.Pointer(codes);
        float* maxima = (float*)CpuTensor.Pointer(absmax);
        void* to = CpuTensor.Pointer(target);
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new RowsDecode<Lanes512, Vector512<float>, Vector512<int>>(from, maxima, columns, scaleFirst, to, kind), rows, columns); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new RowsDecode<Lanes256, Vector256<float>, Vector256<int>>(from, maxima, columns, scaleFirst, to, kind), rows, columns); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new RowsDecode<Lanes128, Vector128<float>, Vector128<int>>(from, maxima, columns, scaleFirst, to, kind), rows, columns); break;
            default: ParallelBlocks.Run(new RowsDecode<Lanes1, float, int>(from, maxima, columns, scaleFirst, to, kind), rows, columns); break;
        }
        KeepAlive(codes, absmax, target);
    }

    /// <inheritdoc/>
    public void ScaleProducts(Tensor products, Tensor rowScales, Tensor columnScales, float step, Tensor? bias, Tensor target)
    {
        var (kind, rows, columns) = (FloatElements.KindOf(target.dtype), products.shape[0], products.shape[1]);
        int* from = (int*)CpuTensor.Pointer(products);
        float* byRow = (float*)CpuTensor.Pointer(rowScales);
        float* byColumn = (float*)CpuTensor.Pointer(columnScales);
        float* add = bias is null ? null : (float*)CpuTensor.Pointer(bias);
        void* to = CpuTensor.Pointer(target);
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new ProductsScale<Lanes512, Vector512<float>, Vector512<int>>(from, byRow, byColumn, step, add, columns, to, kind), rows, columns); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new ProductsScale<Lanes256, Vector256<float>, Vector256<int>>(from, byRow, byColumn, step, add, columns, to, kind), rows, columns); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new ProductsScale<Lanes128, Vector128<float>, Vector128<int>>(from, byRow, byColumn, step, add, columns, to, kind), rows, columns); break;
            default: ParallelBlocks.Run(new ProductsScale<Lanes1, float, int>(from, byRow, byColumn, step, add, columns, to, kind), rows, columns); break;
        }
        KeepAlive(products, rowScales, columnScales, bias, target);
    }

    /// <summary>The statistics of a packed weight, by address.</summary>
    internal static ScalePointers Pointers(BlockScales scales)
        => scales.NestedAbsmax is null
            ? new ScalePointers((float*)CpuTensor.Pointer(scales.Absmax), null, null, 0f)
            : new ScalePointers(null, (byte*)CpuTensor.Pointer(scales.Absmax), (float*)CpuTensor.Pointer(scales.NestedAbsmax), scales.NestedOffset);

    /// <summary>The kernels hold bare addresses; the tensors must outlive them.</summary>
    private static void KeepAlive(params ReadOnlySpan<Tensor?> tensors)
    {
        foreach (var tensor in tensors) GC.KeepAlive(tensor);
    }
}
