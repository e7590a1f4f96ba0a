using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
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
        for (long from = 0; from < count; from += Chunk)
        {
            nint offset = (nint)(from * size);
            _work.Add(new Work(p + offset, g + offset, m + offset, v + offset, (int)Math.Min(Chunk, count - from), half, settings));
        }
    }

    /// <summary>Steps everything on the list and empties it.</summary>
    public void Run()
    {
        CpuParallel.For(_work.Count, 1, (begin, end) =>
        {
            for (long i = begin; i < end; i++) Step(_work[(int)i]);
        });
        _work.Clear();
    }

    private static unsafe void Step(Work w)
    {
        var f = new Factors(w.Settings);
        if (w.Half) Step<BFloat16Element>((void*)w.Parameter, (void*)w.Gradient, (void*)w.First, (void*)w.Second, w.Count, f);
        else Step<Float32Element>((void*)w.Parameter, (void*)w.Gradient, (void*)w.First, (void*)w.Second, w.Count, f);
    }

    private static unsafe void Step<TElement>(void* p, void* g, void* m, void* v, int count, Factors f)
        where TElement : struct, IVectorElement
    {
        int i = 0;
        for (; i <= count - Lanes; i += Lanes) StepLanes<TElement>(p, g, m, v, i, f);
        if (i == count) return;

        // The rest goes through a full set of lanes of its own, so that there is one arithmetic only.
        byte* buffer = stackalloc byte[4 * Lanes * sizeof(float)];
        int bytes = Lanes * sizeof(float), rest = (count - i) * TElement.Size, at = i * TElement.Size;
        void*[] whole = [p, g, m, v];
        new Span<byte>(buffer, 4 * bytes).Clear();
        for (int t = 0; t < 4; t++) new Span<byte>((byte*)whole[t] + at, rest).CopyTo(new Span<byte>(buffer + t * bytes, rest));
        StepLanes<TElement>(buffer, buffer + bytes, buffer + 2 * bytes, buffer + 3 * bytes, 0, f);
        for (int t = 0; t < 4; t++)
            if (t != 1) new Span<byte>(buffer + t * bytes, rest).CopyTo(new Span<byte>((byte*)whole[t] + at, rest));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static unsafe void StepLanes<TElement>(void* p, void* g, void* m, void* v, long i, Factors f)
        where TElement : struct, IVectorElement
    {
        var gradient = TElement.Round(TElement.Load(g, i) * f.GradientScale);
        var weight = TElement.Round(TElement.Load(p, i) * f.Keep);
        var first = TElement.Load(m, i);
        first = TElement.Round(f.FirstShare < 0.5f
            ? first + (gradient - first) * f.FirstShare
            : gradient - (gradient - first) * (1 - f.FirstShare));
        var second = TElement.Round(TElement.Load(v, i) * f.SecondKeep);
        second = TElement.Round(second + gradient * f.SecondShare * gradient);
        var root = TElement.Round(TElement.Round(Vector512.Sqrt(second)) / f.Correction);
        root = TElement.Round(root + Vector512.Create(f.Epsilon));
        weight += first * f.MinusSize / root;
        TElement.Store(p, i, weight);
        TElement.Store(m, i, first);
        TElement.Store(v, i, second);
    }

    private readonly record struct Work(nint Parameter, nint Gradient, nint First, nint Second, int Count, bool Half, AdamWSettings Settings);

    /// <summary>The step's scalars, computed in double and used in float32 as torch does.</summary>
    private readonly struct Factors(AdamWSettings s)
    {
        public readonly float GradientScale = (float)s.GradientScale;
        public readonly float Keep = (float)(1 - s.Rate * s.WeightDecay);
        public readonly float FirstShare = (float)(1 - s.Beta1);
        public readonly float SecondKeep = (float)s.Beta2;
        public readonly float SecondShare = (float)(1 - s.Beta2);
        public readonly float Correction = (float)Math.Sqrt(1 - Math.Pow(s.Beta2, s.Step));
        public readonly float Epsilon = (float)s.Epsilon;
        public readonly float MinusSize = (float)(-s.Rate / (1 - Math.Pow(s.Beta1, s.Step)));
    }
}
