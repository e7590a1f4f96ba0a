using System.Runtime.Intrinsics;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The sum of squares over many tensors on the CPU: one pass in float32 lanes, added up in double chunk by chunk.</summary>
internal sealed unsafe class SquareSum
{
    private const int Lanes = 16;
    private const int Chunk = 1 << 14;

    private readonly List<(nint Data, int Count, bool Half)> _work = [];

    /// <summary>Puts a tensor on the list; it must stay alive until <see cref="Compute"/>.</summary>
    public void Add(Tensor tensor)
    {
        bool half = tensor.dtype == ScalarType.BFloat16;
        nint data = (nint)CpuTensor.Pointer(tensor);
        long count = tensor.numel();
        for (long from = 0; from < count; from += Chunk)
            _work.Add((data + (nint)(from * (half ? BFloat16Element.Size : Float32Element.Size)), (int)Math.Min(Chunk, count - from), half));
    }

    /// <summary>The sum.</summary>
    public double Compute()
    {
        double[] parts = new double[_work.Count];
        CpuParallel.For(_work.Count, 1, (begin, end) =>
        {
            for (long i = begin; i < end; i++)
            {
                var (data, count, half) = _work[(int)i];
                parts[i] = half ? Sum<BFloat16Element>((void*)data, count) : Sum<Float32Element>((void*)data, count);
            }
        });
        // In the order of the list, whatever threads took part: the same gradients always give the same bits.
        return parts.Sum();
    }

    private static double Sum<T>(void* data, int count)
        where T : struct, IVectorElement
    {
        var (first, second) = (Vector512<float>.Zero, Vector512<float>.Zero);
        int i = 0;
        for (; i <= count - 2 * Lanes; i += 2 * Lanes)
        {
            var (a, b) = (T.Load(data, i), T.Load(data, i + Lanes));
            first += a * a;
            second += b * b;
        }
        double sum = Vector512.Sum(first) + (double)Vector512.Sum(second);
        for (; i < count; i++) sum += (double)T.Get(data, i) * T.Get(data, i);
        return sum;
    }
}
