using System.Runtime.CompilerServices;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// One pass over parameter, gradient and both moments on the CPU, in parallel chunks. The operations are those of torch's plain loop in
/// their order, each rounded to the parameter's dtype, so that bfloat16 gives torch's bits.
/// </summary>
public sealed class AdamWKernel
{
    private const int Lanes = 16;
    private const int Chunk = 1 << 15;

    private readonly List<Work> _work = [];

    /// <summary>Whether the tensors are ones this kernel can step: on the CPU, dense, all float32 or all bfloat16.</summary>
    public static bool CanRun(Tensor parameter, Tensor gradient, Tensor first, Tensor second)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        ArgumentNullException.ThrowIfNull(gradient);
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        bool Fits(Tensor t) => t.dtype == parameter.dtype && CpuTensor.IsKernelReady(t) && t.numel() == parameter.numel();
        return CpuTensor.IsKernelReady(parameter) && Fits(gradient) && Fits(first) && Fits(second);
    }

    /// <summary>Puts a parameter on the list; the tensors must stay alive until <see cref="Run"/>.</summary>
    public unsafe void Add(Tensor parameter, Tensor gradient, Tensor first, Tensor second, AdamWSettings settings)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        bool half = parameter.dtype == ScalarType.BFloat16;
        nint p = (nint)CpuTensor.Pointer(parameter), g = (nint)CpuTensor.Pointer(gradient);
        nint m = (nint)CpuTensor.Pointer(first), v = (nint)CpuTensor.Pointer(second);
        long size = half ? BFloat16Element.Size : Float32Element.Size;
        long count = parameter.numel();
        var factors = new Factors(settings, parameter.dtype);
        for (long from = 0; from < count; from += Chunk)
        {
            nint offset = (nint)(from * size);
            _work.Add(new Work(p + offset, g + offset, m + offset, v + offset, (int)Math.Min(Chunk, count - from), half, factors));
        }
    }

    /// <summary>Steps everything on the list and empties it.</summary>
    public void Run()
    {
        VectorLoops.Run(new Loop(_work), _work.Count, 1);
        _work.Clear();
    }

    private readonly struct Loop(List<Work> work) : IVectorLoop
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            for (long i = begin; i < end; i++) Step<V>(work[(int)i]);
        }
    }

    private static unsafe void Step<V>(Work w)
        where V : struct, IFloats<V>
    {
        if (w.Half) Step<BFloat16Element, V>((void*)w.Parameter, (void*)w.Gradient, (void*)w.First, (void*)w.Second, w.Count, w.Factors);
        else Step<Float32Element, V>((void*)w.Parameter, (void*)w.Gradient, (void*)w.First, (void*)w.Second, w.Count, w.Factors);
    }

    private static unsafe void Step<E, V>(void* p, void* g, void* m, void* v, int count, in Factors f)
        where E : struct, IVectorElement
        where V : struct, IFloats<V>
    {
        // The weights follow one vector behind the moments: two short chains side by side instead of a long one, whose latency nothing hides.
        int i = 0;
        if (count >= Lanes)
        {
            Moments<E, V>(g, m, v, 0, f, out V first, out V second);
            for (i = Lanes; i <= count - Lanes; i += Lanes)
            {
                var (before, squares) = (first, second);
                Moments<E, V>(g, m, v, i, f, out first, out second);
                Weights<E, V>(p, i - Lanes, before, squares, f);
            }
            Weights<E, V>(p, i - Lanes, first, second, f);
        }
        if (i == count) return;

        // The rest goes through a full set of lanes of its own, so that there is one arithmetic only.
        byte* buffer = stackalloc byte[4 * Lanes * sizeof(float)];
        int bytes = Lanes * sizeof(float), rest = (count - i) * E.Size, at = i * E.Size;
        void*[] whole = [p, g, m, v];
        new Span<byte>(buffer, 4 * bytes).Clear();
        for (int t = 0; t < 4; t++) new Span<byte>((byte*)whole[t] + at, rest).CopyTo(new Span<byte>(buffer + t * bytes, rest));
        Moments<E, V>(buffer + bytes, buffer + 2 * bytes, buffer + 3 * bytes, 0, f, out V lastFirst, out V lastSecond);
        Weights<E, V>(buffer, 0, lastFirst, lastSecond, f);
        for (int t = 0; t < 4; t++)
            if (t != 1) new Span<byte>(buffer + t * bytes, rest).CopyTo(new Span<byte>((byte*)whole[t] + at, rest));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static unsafe void Moments<E, V>(void* g, void* m, void* v, long i, in Factors f, out V first, out V second)
        where E : struct, IVectorElement
        where V : struct, IFloats<V>
    {
        V gradient = E.Load<V>(g, i);
        if (f.GradientScale != 1) gradient = E.RoundPlain(gradient * f.GradientScale);
        first = E.Load<V>(m, i);
        first = E.RoundPlain(f.FirstShare < 0.5f
            ? first + (gradient - first) * f.FirstShare
            : gradient - (gradient - first) * (1 - f.FirstShare));
        E.StoreRounded(m, i, first);
        second = E.RoundPlain(E.Load<V>(v, i) * f.SecondKeep);
        second = E.RoundPlain(second + gradient * f.SecondShare * gradient);
        E.StoreRounded(v, i, second);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static unsafe void Weights<E, V>(void* p, long i, V first, V second, in Factors f)
        where E : struct, IVectorElement
        where V : struct, IFloats<V>
    {
        V root = E.RoundPlain(E.RoundPlain(V.Sqrt(second)) / f.Correction);
        root = E.RoundPlain(root + V.All(f.Epsilon));
        E.StoreRounded(p, i, E.Round(E.RoundPlain(E.Load<V>(p, i) * f.Keep) + first * f.MinusSize / root));
    }

    private readonly record struct Work(nint Parameter, nint Gradient, nint First, nint Second, int Count, bool Half, Factors Factors);

    /// <summary>The step's scalars, computed in double and used in float32 as torch does; only eps is rounded to bfloat16, by torch's <c>add_</c>.</summary>
    private readonly struct Factors(AdamWSettings s, ScalarType dtype)
    {
        public readonly float GradientScale = (float)s.GradientScale;
        public readonly float Keep = (float)(1 - s.Rate * s.WeightDecay);
        public readonly float FirstShare = (float)(1 - s.Beta1);
        public readonly float SecondKeep = (float)s.Beta2;
        public readonly float SecondShare = (float)(1 - s.Beta2);
        public readonly float Correction = (float)Math.Sqrt(1 - Math.Pow(s.Beta2, s.Step));
        public readonly float Epsilon = (float)s.RoundedEpsilon(dtype);
        public readonly float MinusSize = (float)(-s.Rate / (1 - Math.Pow(s.Beta1, s.Step)));
    }
}
