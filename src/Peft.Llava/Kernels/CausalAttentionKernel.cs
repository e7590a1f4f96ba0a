using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The elementwise parts of blocked causal attention on the CPU; the products between them are libtorch's.</summary>
/// <remarks>Score buffers have row lengths that divide by 32, so no row has a remainder; columns beyond the diagonal come out as zero.</remarks>
internal static unsafe class CausalAttentionKernel
{
    /// <summary>Rotates (N, H·d) rows by their positions and lays them out as (H, N + pad, d).</summary>
    /// <param name="rows">(N, H·d).</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <param name="heads">(H, N + pad, d), written for the first N rows.</param>
    public static void RotateToHeads<E>(Tensor rows, Tensor cos, Tensor sin, Tensor heads)
        where E : struct, IVectorElement
    {
        long count = rows.shape[0], headCount = heads.shape[0], stride = heads.shape[1], width = heads.shape[2], half = width / 2;
        void* x = CpuTensor.Pointer(rows), y = CpuTensor.Pointer(heads);
        float* c = (float*)CpuTensor.Pointer(cos), s = (float*)CpuTensor.Pointer(sin);
        VectorLoops.Run(new RotateToHeadsLoop<E>(x, y, c, s, headCount, stride, width, half), count, 8);
    }

    /// <summary>The transpose of <see cref="RotateToHeads"/>: gradients (H, N + pad, d) back to (N, H·d).</summary>
    /// <param name="heads">(H, N + pad, d) float32.</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <param name="rows">(N, H·d), written.</param>
    public static void RotateFromHeads<E>(Tensor heads, Tensor cos, Tensor sin, Tensor rows)
        where E : struct, IVectorElement
    {
        long count = rows.shape[0], headCount = heads.shape[0], stride = heads.shape[1], width = heads.shape[2], half = width / 2;
        float* x = (float*)CpuTensor.Pointer(heads);
        void* y = CpuTensor.Pointer(rows);
        float* c = (float*)CpuTensor.Pointer(cos), s = (float*)CpuTensor.Pointer(sin);
        VectorLoops.Run(new RotateFromHeadsLoop<E>(x, y, c, s, headCount, stride, width, half), count, 8);
    }

    /// <summary>Causal softmax of a block of scores, in place.</summary>
    /// <param name="scores">(H, rows, L), L a multiple of 32; row r is query <paramref name="firstQuery"/> + r and sees keys up to itself.</param>
    /// <param name="firstQuery">Position of the first row in its sequence.</param>
    /// <param name="scale">Multiplies the scores.</param>
    /// <param name="logSums">(H, N) float32: the logarithm of each row's sum of exponentials is written at column <paramref name="firstColumn"/> + r.</param>
    /// <param name="firstColumn">Index of the first row among all rows of the batch.</param>
    public static void Softmax<E>(Tensor scores, long firstQuery, float scale, Tensor logSums, long firstColumn)
        where E : struct, IVectorElement
    {
        long heads = scores.shape[0], rows = scores.shape[1], length = scores.shape[2], columns = logSums.shape[1];
        void* p = CpuTensor.Pointer(scores);
        float* lse = (float*)CpuTensor.Pointer(logSums);
        VectorLoops.Run(new SoftmaxLoop<E>(p, lse, rows, length, columns, firstQuery, scale, firstColumn), heads * rows, 8);
    }

    /// <summary>The softmax once more from its saved sums, and the gradient of the scores, both in place.</summary>
    /// <param name="scores">(H, rows, L): scores on entry, probabilities on return.</param>
    /// <param name="gradients">(H, rows, L): gradient of the probabilities on entry, of the unscaled scores on return.</param>
    /// <param name="firstQuery">Position of the first row in its sequence.</param>
    /// <param name="scale">Multiplies the scores.</param>
    /// <param name="logSums">(H, N) as <see cref="Softmax"/> wrote it.</param>
    /// <param name="deltas">(H, N) float32: each row's inner product of output and its gradient.</param>
    /// <param name="firstColumn">Index of the first row among all rows of the batch.</param>
    public static void SoftmaxBackward<E>(
        Tensor scores, Tensor gradients, long firstQuery, float scale, Tensor logSums, Tensor deltas, long firstColumn)
        where E : struct, IVectorElement
    {
        long heads = scores.shape[0], rows = scores.shape[1], length = scores.shape[2], columns = logSums.shape[1];
        void* p = CpuTensor.Pointer(scores), dp = CpuTensor.Pointer(gradients);
        float* lse = (float*)CpuTensor.Pointer(logSums), deltaOf = (float*)CpuTensor.Pointer(deltas);
        VectorLoops.Run(new SoftmaxBackwardLoop<E>(p, dp, lse, deltaOf, rows, length, columns, firstQuery, scale, firstColumn), heads * rows, 8);
    }

    /// <summary>Each head row's inner product of the output and its gradient.</summary>
    /// <param name="output">(N, H·d).</param>
    /// <param name="gradient">(N, H·d).</param>
    /// <param name="deltas">(H, N) float32, written.</param>
    public static void Deltas<E>(Tensor output, Tensor gradient, Tensor deltas)
        where E : struct, IVectorElement
    {
        long count = output.shape[0], heads = deltas.shape[0], width = output.shape[1] / heads;
        void* o = CpuTensor.Pointer(output), g = CpuTensor.Pointer(gradient);
        float* delta = (float*)CpuTensor.Pointer(deltas);
        VectorLoops.Run(new DeltasLoop<E>(o, g, delta, count, heads, width), count, 8);
    }
}
