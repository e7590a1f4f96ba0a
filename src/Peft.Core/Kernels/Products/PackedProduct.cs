using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A matrix product whose packing decodes: <c>result = Σ left · right</c> in float32, whatever the operands are stored as, rounded once at the end.
/// </summary>
/// <remarks>
/// The scheme of Goto and van de Geijn (2008), "Anatomy of High-Performance Matrix Multiplication": the left matrix is packed once for a block of its
/// rows, the right one panel by panel into the first-level cache, where it is decoded; tiles of the result stay in registers. So a weight in bfloat16,
/// 4 or 8 bit is read once per block of rows, in its stored form, and exists in float32 only as a few panels. Sums run over blocks of
/// <see cref="DepthBlock"/> in order: the result does not depend on the number of threads.
/// </remarks>
public static unsafe class PackedProduct
{
    /// <summary>Rows of a panel: what is summed in registers at a time.</summary>
    public const int DepthBlock = 256;

    /// <summary>Floats of scratch memory that a panel source gets.</summary>
    public const int ScratchElements = 16 * DepthBlock;

    private const int TileRows = 6;
    private const int MostGroupColumns = 128;
    private const int MostBlockRows = 768;
    private const long MostPackedFloats = 3 << 20;

    /// <summary>Computes on all of libtorch's threads.</summary>
    /// <param name="terms">What is summed; all have the same rows and columns.</param>
    /// <param name="result">Where it goes.</param>
    internal static void Run(ReadOnlySpan<ProductTerm> terms, in ResultMemory result)
    {
        if (CpuLevels.Current >= CpuLevel.Avx512) Run<MicroKernel512>(terms, result, get_num_threads());
        else Run<MicroKernel256>(terms, result, get_num_threads());
    }

    /// <summary>Computes one product on the calling thread, for kernels that multiply many small matrices side by side. Calls no torch operator.</summary>
    /// <param name="left">(rows, depth), float32 or bfloat16.</param>
    /// <param name="right">(depth, columns), float32 or bfloat16.</param>
    /// <param name="result">(rows, columns), float32 or bfloat16; written, or added to.</param>
    /// <param name="form">How the matrices lie.</param>
    /// <param name="factor">Multiplies the product.</param>
    public static void Multiply(in MatrixMemory left, in MatrixMemory right, in MatrixMemory result, ProductForm form = ProductForm.None, float factor = 1)
    {
        IPanelSource panels = form.HasFlag(ProductForm.RightTransposed) ? new RowPanels(right) : new ColumnPanels(right);
        ProductTerm[] terms = [new(left, panels, factor, form.HasFlag(ProductForm.LeftTransposed))];
        var target = new ResultMemory(result, Add: form.HasFlag(ProductForm.Add));
        if (CpuLevels.Current >= CpuLevel.Avx512) Run<MicroKernel512>(terms, target, 1);
        else Run<MicroKernel256>(terms, target, 1);
    }

    /// <summary><c>a bᵀ</c> in integers, exactly: sums of a block of the depth fit into float32's 24 bits, and the blocks are added as integers.</summary>
    /// <param name="a">(rows, depth) int8, contiguous on the CPU.</param>
    /// <param name="b">(columns, depth) int8, the same.</param>
    /// <param name="sums">Takes the sums.</param>
    public static void MultiplyIntegers(Tensor a, Tensor b, IIntegerSums sums)
    {
        ArgumentNullException.ThrowIfNull(a);
        ArgumentNullException.ThrowIfNull(b);
        ArgumentNullException.ThrowIfNull(sums);
        if (a.shape[0] <= FewRowsProduct.MostRows)
        {
            FewRowsIntegers.Run(a, b, sums);
            return;
        }
        ProductTerm[] terms = [new(MatrixMemory.Of(a), new Int8CodePanels(MatrixMemory.Of(b)))];
        if (CpuLevels.Current >= CpuLevel.Avx512) Run<MicroKernel512>(terms, default, get_num_threads(), sums);
        else Run<MicroKernel256>(terms, default, get_num_threads(), sums);
    }

    private static void Run<K>(ReadOnlySpan<ProductTerm> terms, in ResultMemory result, int threads, IIntegerSums? integers = null)
        where K : IMicroKernel
    {
        long rows = terms[0].Rows, columns = terms[0].Right.Columns;
        if (rows == 0 || columns == 0) return;
        long depth = 0;
        foreach (var term in terms) depth += (term.Depth + DepthBlock - 1) / DepthBlock * DepthBlock;
        long most = Math.Clamp(MostPackedFloats / Math.Max(depth, 1), 96, MostBlockRows);
        long blocks = (rows + most - 1) / most;
        long step = ((rows + blocks - 1) / blocks + TileRows - 1) / TileRows * TileRows;
        var run = new Block<K>(terms.ToArray(), result, integers, columns, threads);
        for (long first = 0; first < rows; first += step) run.Run(first, (int)Math.Min(step, rows - first), depth);
    }

    /// <summary>The product for a block of rows.</summary>
    private sealed class Block<K>(ProductTerm[] terms, ResultMemory result, IIntegerSums? integers, long columns, int threads)
        where K : IMicroKernel
    {
        private readonly int _group = GroupColumns(columns, threads);
        private long _first;
        private int _rows, _tiles;
        private float* _packed;
        private int _next;

        public void Run(long first, int rows, long depth)
        {
            (_first, _rows, _tiles) = (first, rows, (rows + TileRows - 1) / TileRows);
            using var packed = NativeBuffers.Rent(depth * _tiles * TileRows * sizeof(float));
            _packed = (float*)packed.Pointer;
            _next = 0;
            if (threads == 1)
            {
                Pack(0, _tiles);
                Multiply();
                return;
            }
            CpuParallel.For(_tiles, 4, Pack);
            CpuParallel.For(threads, 1, (begin, end) => Multiply());
        }

        private static int GroupColumns(long columns, int threads)
        {
            int group = MostGroupColumns;
            while (group > K.Columns && columns < 4L * threads * group) group /= 2;
            return group;
        }

        /// <summary>Packs some tiles of rows of all left matrices: for each block of the depth, each tile, each of its six rows, the row's floats.</summary>
        private void Pack(long begin, long end)
        {
            float* target = _packed;
            foreach (var term in terms)
            {
                for (long k = 0; k < term.Depth; k += DepthBlock, target += (long)_tiles * TileRows * DepthBlock)
                {
                    int depth = (int)Math.Min(DepthBlock, term.Depth - k);
                    for (long tile = begin; tile < end; tile++)
                        LeftPacking.Tile(term, _first + tile * TileRows, (int)Math.Min(TileRows, _rows - tile * TileRows), k, depth, target + tile * TileRows * DepthBlock);
                }
            }
        }

        /// <summary>Takes groups of columns until none is left.</summary>
        private void Multiply()
        {
            long sumFloats = (long)_tiles * TileRows * _group, panelFloats = (long)_group * DepthBlock;
            using var memory = NativeBuffers.Rent((sumFloats + panelFloats + ScratchElements) * sizeof(float));
            float* panels = (float*)memory.Pointer, scratch = panels + panelFloats, sums = scratch + ScratchElements;
            for (long column = NextGroup(); column < columns; column = NextGroup())
            {
                int here = (int)Math.Min(_group, columns - column), panelCount = (here + K.Columns - 1) / K.Columns;
                float* left = _packed;
                bool add = false;
                foreach (var term in terms)
                {
                    for (long k = 0; k < term.Depth; k += DepthBlock, left += (long)_tiles * TileRows * DepthBlock, add = true)
                    {
                        int depth = (int)Math.Min(DepthBlock, term.Depth - k);
                        term.Right.Fill(column, here, k, depth, panels, K.Columns, scratch);
                        for (int panel = 0; panel < panelCount; panel++)
                        {
                            float* a = left, b = panels + (long)panel * K.Columns * depth, c = sums + panel * K.Columns;
                            for (int tile = 0; tile < _tiles; tile++, a += TileRows * DepthBlock, c += TileRows * _group)
                            {
                                if (integers is null) K.Run(a, b, depth, c, _group, add);
                                else
                                {
                                    K.Run(a, b, depth, scratch, K.Columns, add: false);
                                    AddIntegers(scratch, (int*)c, _group, add);
                                }
                            }
                        }
                    }
                }
                if (integers is null) result.Store(_first, _rows, column, here, sums, _group);
                else integers.Take(_first, _rows, column, here, (int*)sums, _group);
            }
        }

        private static void AddIntegers(float* tile, int* sums, long stride, bool add)
        {
            for (int r = 0; r < TileRows; r++, tile += K.Columns, sums += stride)
            {
                for (int j = 0; j < K.Columns; j += 8)
                {
                    var value = Vector256.ConvertToInt32Native(Vector256.Load(tile + j));
                    (add ? value + Vector256.Load(sums + j) : value).Store(sums + j);
                }
            }
        }

        private long NextGroup() => (long)(Interlocked.Increment(ref _next) - 1) * _group;
    }
}
