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
        VectorLoops.Run(new Loop(_work, parts), _work.Count, 1);
        // In the order of the list, whatever threads took part: the same gradients always give the same bits.
        return parts.Sum();
    }

    private readonly struct Loop(List<(nint Data, int Count, bool Half)> work, double[] parts) : IVectorLoop
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            for (long i = begin; i < end; i++)
            {
                var (data, count, half) = work[(int)i];
                parts[i] = half ? Sum<BFloat16Element, V>((void*)data, count) : Sum<Float32Element, V>((void*)data, count);
            }
        }
    }

    private static double Sum<E, V>(void* data, int count)
        where E : struct, IVectorElement
        where V : struct, IFloats<V>
    {
        var (first, second) = (default(V), default(V));
        int i = 0;
        for (; i <= count - 2 * Lanes; i += 2 * Lanes)
        {
            var (a, b) = (E.Load<V>(data, i), E.Load<V>(data, i + Lanes));
            first += a * a;
            second += b * b;
        }
        double sum = V.Sum(first) + (double)V.Sum(second);
        for (; i < count; i++) sum += (double)E.Get(data, i) * E.Get(data, i);
        return sum;
    }
}
