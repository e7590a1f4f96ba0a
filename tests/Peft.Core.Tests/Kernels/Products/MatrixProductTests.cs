using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>The packed product against float64 products of the same operands, at every level that can run, at shapes that divide by nothing.</summary>
[Trait("Level", "any")]
public sealed class MatrixProductTests
{
    public static TheoryData<CpuLevel, ScalarType, int, int, int> Cases()
    {
        var data = new TheoryData<CpuLevel, ScalarType, int, int, int>();
        foreach (var level in CpuLevels.Supported.Where(level => level >= CpuLevel.Avx2))
            foreach (var dtype in new[] { ScalarType.Float32, ScalarType.BFloat16 })
                foreach (var (rows, columns, depth) in new[] { (1, 33, 70), (3, 17, 300), (5, 31, 9), (7, 130, 257), (13, 259, 513), (800, 45, 37) })
                    data.Add(level, dtype, rows, columns, depth);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_linear_product_equals_the_exact_one(CpuLevel level, ScalarType dtype, int rows, int columns, int depth)
    {
        using var scope = NewDisposeScope();
        using var forced = CpuLevels.Force(level);
        using var engine = ProductChoice.Force(ProductEngine.Packed);
        var (x, w, b) = (randn(rows, depth).to(dtype), randn(columns, depth).to(dtype), randn(columns).to(dtype));
        var exact = x.to(ScalarType.Float64).matmul(w.to(ScalarType.Float64).t()) + b.to(ScalarType.Float64);
        Check(exact, MatrixProduct.Linear(x, w, b), dtype, depth, "x Wᵀ + b");
        Check(exact - b.to(ScalarType.Float64), MatrixProduct.Multiply(x, w.t()), dtype, depth, "x W of a transposed view");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void The_gradients_of_input_and_weight_equal_the_exact_ones(CpuLevel level, ScalarType dtype, int rows, int columns, int depth)
    {
        using var scope = NewDisposeScope();
        using var forced = CpuLevels.Force(level);
        using var engine = ProductChoice.Force(ProductEngine.Packed);
        var x = randn(rows, depth).to(dtype).requires_grad_();
        var w = randn(columns, depth).to(dtype).requires_grad_();
        var b = randn(columns).to(dtype).requires_grad_();
        var g = randn(rows, columns).to(dtype);
        MatrixProduct.Linear(x, w, b).backward([g]);
        var (g64, x64, w64) = (g.to(ScalarType.Float64), x.detach().to(ScalarType.Float64), w.detach().to(ScalarType.Float64));
        Check(g64.matmul(w64), x.grad!, dtype, columns, "gradient of x");
        Check(g64.t().matmul(x64), w.grad!, dtype, rows, "gradient of W");
        Check(g64.sum(dim: 0L), b.grad!, dtype, rows, "gradient of b");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_product_is_added_to_a_target_and_rounded_once(CpuLevel level, ScalarType dtype, int rows, int columns, int depth)
    {
        using var scope = NewDisposeScope();
        using var forced = CpuLevels.Force(level);
        using var engine = ProductChoice.Force(ProductEngine.Packed);
        var (x, w, target) = (randn(rows, depth).to(dtype), randn(columns, depth).to(dtype), (randn(rows, columns) * 30).to(dtype));
        var exact = target.to(ScalarType.Float64) + x.to(ScalarType.Float64).matmul(w.to(ScalarType.Float64).t()) * 0.75;
        MatrixProduct.AddLinear(target, x, w, 0.75);
        Check(exact, target, dtype, depth, "target + 0.75 x Wᵀ");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Products_of_integers_are_exact(CpuLevel level, ScalarType dtype, int rows, int columns, int depth)
    {
        Assert.True(dtype is ScalarType.Float32 or ScalarType.BFloat16);
        using var scope = NewDisposeScope();
        using var forced = CpuLevels.Force(level);
        // Nearly all at the limit: the sums are above 2^24, where float32 has no odd numbers, from a depth of 1,041 on.
        int deep = depth + 1200;
        var (a, b) = (full([rows, deep], -127, ScalarType.Int8), full([columns, deep], 127, ScalarType.Int8));
        a.narrow(1, 5, 40).copy_(randint(-127, 128, [rows, 40], ScalarType.Int8));
        b.narrow(1, 17, 60).copy_(randint(-127, 128, [columns, 60], ScalarType.Int8));
        var sums = new Collected(rows, columns);
        PackedProduct.MultiplyIntegers(a, b, sums);
        var exact = a.to(ScalarType.Float64).matmul(b.to(ScalarType.Float64).t()).to(ScalarType.Int32);
        TensorAssert.Equal(exact, tensor(sums.Values, [rows, columns]), "integer products");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Many_small_products_run_side_by_side_with_gradients(CpuLevel level, ScalarType dtype, int rows, int columns, int depth)
    {
        using var scope = NewDisposeScope();
        using var forced = CpuLevels.Force(level);
        using var engine = ProductChoice.Force(ProductEngine.Packed);
        rows = Math.Min(rows, 40);
        foreach (bool transposed in new[] { false, true })
        {
            var a = randn(2, 3, rows, depth).to(dtype).requires_grad_();
            var b = (transposed ? randn(2, 3, columns, depth) : randn(2, 3, depth, columns)).to(dtype).requires_grad_();
            var g = randn(2, 3, rows, columns).to(dtype);
            var product = BatchProduct.Multiply(a, b, transposed);
            product.backward([g]);
            var (a64, b64, g64) = (a.detach().to(ScalarType.Float64), b.detach().to(ScalarType.Float64), g.to(ScalarType.Float64));
            var straight = transposed ? b64.transpose(-2, -1) : b64;
            Check(a64.matmul(straight), product.detach(), dtype, depth, "product");
            Check(g64.matmul(straight.transpose(-2, -1)), a.grad!, dtype, columns, "gradient of a");
            var ofB = a64.transpose(-2, -1).matmul(g64);
            Check(transposed ? ofB.transpose(-2, -1) : ofB, b.grad!, dtype, rows, "gradient of b");
        }
    }

    [Fact]
    public void A_product_does_not_depend_on_the_number_of_threads()
    {
        if (CpuLevels.Current < CpuLevel.Avx2) return;
        using var scope = NewDisposeScope();
        using var engine = ProductChoice.Force(ProductEngine.Packed);
        var (x, w) = (randn(50, 700), randn(333, 700));
        int before = get_num_threads();
        var two = MatrixProduct.Linear(x, w);
        set_num_threads(1);
        var one = MatrixProduct.Linear(x, w);
        set_num_threads(before);
        TensorAssert.Equal(one, two, "product");
    }

    [Fact]
    public void Steps_leave_no_tensor_behind()
    {
        if (CpuLevels.Current < CpuLevel.Avx2) return;
        using var engine = ProductChoice.Force(ProductEngine.Packed);
        using var w = randn(30, 20, requires_grad: true);
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            using var once = BackwardTensors.SinglePass();
            MatrixProduct.Linear(randn(9, 20, requires_grad: true), w).sum().backward();
        });
    }

    private static void Check(Tensor exact, Tensor got, ScalarType dtype, long depth, string what)
    {
        Assert.Equal(dtype, got.dtype);
        // One rounding of the result, and float32 sums of products of about 1.
        double rounding = dtype == ScalarType.BFloat16 ? 1.0 / 256 : 1e-6;
        TensorAssert.Close(exact, got, 2e-6 * Math.Sqrt(depth) * 4, rounding, what);
    }

    private sealed unsafe class Collected(long rows, long columns) : IIntegerSums
    {
        public int[] Values { get; } = new int[rows * columns];

        public void Take(long row, int rows, long column, int columns, int* sums, long stride)
        {
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < columns; j++) Values[(row + r) * Columns + column + j] = sums[r * stride + j];
        }

        private long Columns { get; } = columns;
    }
}
