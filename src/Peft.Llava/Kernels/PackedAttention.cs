using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Causal attention over packed rows for processors whose products are the packed ones (<see cref="ProductChoice"/>): each thread takes whole heads, block
/// of queries by block, and multiplies them where they lie. Sums and probabilities are float32 whatever the rows' dtype.
/// </summary>
/// <remarks>As in Dao et al. 2022, "FlashAttention": kept are the rotated queries and keys, the values, the output and a float per head and row.</remarks>
internal static unsafe class PackedAttention
{
    private const int QueryBlock = 126;     // a multiple of the product's six rows

    /// <summary>What the backward needs.</summary>
    /// <param name="Output">(N, Hq·d).</param>
    /// <param name="Query">(N, Hq·d), rotated.</param>
    /// <param name="Key">(N, Hkv·d), rotated.</param>
    /// <param name="Value">(N, Hkv·d).</param>
    /// <param name="LogSums">(Hq, N) float32.</param>
    internal readonly record struct Saved(Tensor Output, Tensor Query, Tensor Key, Tensor Value, Tensor LogSums);

    /// <summary>Rotates and attends.</summary>
    /// <param name="query">(N, Hq·d), contiguous, not rotated.</param>
    /// <param name="key">(N, Hkv·d), the same.</param>
    /// <param name="value">(N, Hkv·d).</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <param name="layout">Where each sequence lies.</param>
    public static Saved Forward(Tensor query, Tensor key, Tensor value, Tensor cos, Tensor sin, SequenceLayout layout)
    {
        var (q, k) = (RotaryRows.Rotate(query, cos, sin), RotaryRows.Rotate(key, cos, sin));
        long rows = query.shape[0], width = cos.shape[1] * 2, heads = query.shape[1] / width, group = heads / (key.shape[1] / width);
        var (output, logSums) = (empty_like(query), empty([heads, rows], ScalarType.Float32));
        var (qm, km, vm, om) = (MatrixMemory.Of(q), MatrixMemory.Of(k), MatrixMemory.Of(value), MatrixMemory.Of(output));
        float* lse = (float*)CpuTensor.Pointer(logSums);
        float scale = 1 / MathF.Sqrt(width);
        var blocks = Blocks(layout).ToArray();
        CpuParallel.For(heads * blocks.Length, 1, (begin, end) =>
        {
            using var memory = Scratch.Rent(QueryBlock * Stride(layout.PaddedLength));
            for (long item = begin; item < end; item++)
            {
                // A thread gets whole heads, as far as that goes: their blocks of all lengths, so that the shares weigh the same.
                var block = blocks[item % blocks.Length];
                long head = item / blocks.Length;
                var scores = memory.Matrix(0, block.Count, block.Keys);
                var keys = km.Part(block.Start, block.Keys, head / group * width, width);
                PackedProduct.Multiply(qm.Part(block.First, block.Count, head * width, width), keys, scores, ProductForm.RightTransposed);
                for (int r = 0; r < block.Count; r++)
                    lse[head * rows + block.First + r] = ScoreRows.Softmax((float*)scores.At(r, 0), block.Seen(r), block.Keys, scale);
                PackedProduct.Multiply(scores, vm.Part(block.Start, block.Keys, head / group * width, width), om.Part(block.First, block.Count, head * width, width));
            }
        });
        return new Saved(output, q, k, value.alias(), logSums);
    }

    /// <summary>The gradients of query, key and value, before rotation.</summary>
    /// <param name="saved">What the forward kept.</param>
    /// <param name="gradient">(N, Hq·d), contiguous.</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <param name="layout">Where each sequence lies.</param>
    public static (Tensor Query, Tensor Key, Tensor Value) Backward(in Saved saved, Tensor gradient, Tensor cos, Tensor sin, SequenceLayout layout)
    {
        long rows = gradient.shape[0], width = cos.shape[1] * 2, heads = gradient.shape[1] / width, keyHeads = saved.Key.shape[1] / width;
        var result = (Query: empty_like(saved.Query), Key: empty_like(saved.Key), Value: empty_like(saved.Value));
        var task = new BackwardTask
        {
            Query = MatrixMemory.Of(saved.Query), Key = MatrixMemory.Of(saved.Key), Value = MatrixMemory.Of(saved.Value), Output = MatrixMemory.Of(saved.Output),
            Gradient = MatrixMemory.Of(gradient), OfQuery = MatrixMemory.Of(result.Query), OfKey = MatrixMemory.Of(result.Key), OfValue = MatrixMemory.Of(result.Value),
            LogSums = (float*)CpuTensor.Pointer(saved.LogSums), Cos = (float*)CpuTensor.Pointer(cos), Sin = (float*)CpuTensor.Pointer(sin),
            Rows = rows, Width = width, Group = heads / keyHeads, Scale = 1 / MathF.Sqrt(width),
        };
        CpuParallel.For(keyHeads * layout.Count, 1, (begin, end) =>
        {
            long stride = Stride(layout.PaddedLength);
            using var memory = Scratch.Rent(2 * QueryBlock * stride + 2 * width * stride + QueryBlock * width);
            for (long item = begin; item < end; item++) task.Run((int)(item / keyHeads), item % keyHeads, layout, memory);
        });
        return result;
    }

    private static long Stride(long length) => (length + 15) / 16 * 16;

    /// <summary>Some queries of a sequence: rows <c>First … First + Count</c> of the batch, in the sequence that starts at <c>Start</c>, with the keys up to the last of them.</summary>
    private readonly record struct Block(long Start, long First, int Count, int Keys)
    {
        /// <summary>Keys that a row sees.</summary>
        public int Seen(int row) => Keys - Count + row + 1;
    }

    private static IEnumerable<Block> Blocks(SequenceLayout layout)
    {
        for (int s = 0; s < layout.Count; s++)
            foreach (var block in Blocks(layout, s)) yield return block;
    }

    private static IEnumerable<Block> Blocks(SequenceLayout layout, int sequence)
    {
        long start = layout.Offsets[sequence];
        for (int first = 0; first < layout.Lengths[sequence]; first += QueryBlock)
        {
            int count = Math.Min(QueryBlock, layout.Lengths[sequence] - first);
            yield return new Block(start, start + first, count, first + count);
        }
    }

    /// <summary>The backward of one key and value head, with all query heads that it serves, in one sequence.</summary>
    private sealed class BackwardTask
    {
        public MatrixMemory Query, Key, Value, Output, Gradient, OfQuery, OfKey, OfValue;
        public float* LogSums, Cos, Sin;
        public long Rows, Width, Group;
        public float Scale;

        public void Run(int sequence, long keyHead, SequenceLayout layout, Scratch memory)
        {
            int length = layout.Lengths[sequence];
            long start = layout.Offsets[sequence], stride = Stride(length), at = keyHead * Width;
            // Sums over the query blocks, (d, keys): transposed, so that no product needs its wide operand transposed.
            long scoreFloats = QueryBlock * stride;
            var ofKey = memory.Matrix(2 * scoreFloats, Width, length, stride);
            var ofValue = memory.Matrix(2 * scoreFloats + Width * stride, Width, length, stride);
            var ofQuery = memory.Matrix(2 * scoreFloats + 2 * Width * stride, QueryBlock, Width, Width);
            bool add = false;
            for (long head = keyHead * Group; head < (keyHead + 1) * Group; head++)
            {
                // The longest block first: it writes all columns of the sums that later ones add to.
                foreach (var block in Blocks(layout, sequence).Reverse())
                {
                    var (scores, gradScores) = (memory.Matrix(0, block.Count, block.Keys), memory.Matrix(scoreFloats, block.Count, block.Keys));
                    var queries = Query.Part(block.First, block.Count, head * Width, Width);
                    var grads = Gradient.Part(block.First, block.Count, head * Width, Width);
                    var keys = Key.Part(start, block.Keys, at, Width);
                    PackedProduct.Multiply(queries, keys, scores, ProductForm.RightTransposed);
                    PackedProduct.Multiply(grads, Value.Part(start, block.Keys, at, Width), gradScores, ProductForm.RightTransposed);
                    for (int r = 0; r < block.Count; r++)
                    {
                        ScoreRows.SoftmaxBackward(
                            (float*)scores.At(r, 0), (float*)gradScores.At(r, 0), block.Seen(r), block.Keys, Scale, LogSums[head * Rows + block.First + r], Delta(block.First + r, head));
                    }
                    var form = ProductForm.LeftTransposed | (add ? ProductForm.Add : ProductForm.None);
                    PackedProduct.Multiply(grads, scores, ofValue.Part(0, Width, 0, block.Keys), form);
                    PackedProduct.Multiply(queries, gradScores, ofKey.Part(0, Width, 0, block.Keys), form);
                    add = true;
                    PackedProduct.Multiply(gradScores, keys, ofQuery.Part(0, block.Count, 0, Width));
                    for (int r = 0; r < block.Count; r++)
                    {
                        long row = block.First + r;
                        RotaryRows.Back((float*)ofQuery.At(r, 0), 1, Cos + row * Width / 2, Sin + row * Width / 2, Width / 2, (void*)OfQuery.Data, OfQuery.IsHalf, row * OfQuery.Stride + head * Width);
                    }
                }
            }
            for (long n = 0; n < length; n++)
            {
                long row = start + n;
                RotaryRows.Back((float*)ofKey.At(0, n), stride, Cos + row * Width / 2, Sin + row * Width / 2, Width / 2, (void*)OfKey.Data, OfKey.IsHalf, row * OfKey.Stride + at);
                for (long i = 0; i < Width; i++)
                {
                    float value = *(float*)ofValue.At(i, n);
                    if (OfValue.IsHalf) BFloat16Element.Set((void*)OfValue.Data, row * OfValue.Stride + at + i, value);
                    else ((float*)OfValue.Data)[row * OfValue.Stride + at + i] = value;
                }
            }
        }

        private float Delta(long row, long head)
        {
            void* output = Output.At(row, head * Width), gradient = Gradient.At(row, head * Width);
            float sum = 0;
            for (long i = 0; i < Width; i++)
            {
                sum += Output.IsHalf
                    ? BFloat16Element.Get(output, i) * BFloat16Element.Get(gradient, i)
                    : ((float*)output)[i] * ((float*)gradient)[i];
            }
            return sum;
        }
    }

    /// <summary>A thread's own memory.</summary>
    private readonly struct Scratch(float[] buffer, System.Runtime.InteropServices.GCHandle handle) : IDisposable
    {
        public static Scratch Rent(long floats)
        {
            float[] buffer = System.Buffers.ArrayPool<float>.Shared.Rent(checked((int)floats));
            return new Scratch(buffer, System.Runtime.InteropServices.GCHandle.Alloc(buffer, System.Runtime.InteropServices.GCHandleType.Pinned));
        }

        /// <summary>A float32 matrix from a place on.</summary>
        public MatrixMemory Matrix(long at, long rows, long columns, long? stride = null)
            => new((nint)((float*)handle.AddrOfPinnedObject() + at), rows, columns, stride ?? columns, MatrixElement.Single);

        public void Dispose()
        {
            handle.Free();
            System.Buffers.ArrayPool<float>.Shared.Return(buffer);
        }
    }
}
