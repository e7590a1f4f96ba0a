using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// One pass over parameter, gradient and both moments on the CPU, in parallel chunks. The operations are those of torch's plain loop in
/// their order, each rounded to the parameter's dtype, so that bfloat16 gives torch's bits.
/// </summary>
public sealed class AdamWKernel
{
    private const int Chunk = 1 << 15;

    private readonly List<Work> _work = [];

    /// <summary>Whether the tensors are ones this kernel can step: on the CPU, dense, all float32 or all bfloat16.</summary>
    public static bool CanRun(Tensor parameter, Tensor gradient, Tensor first, Tensor second)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        ArgumentNullException.ThrowIfNull(gradient);
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        return parameter.dtype is ScalarType.Float32 or ScalarType.BFloat16
            && new[] { parameter, gradient, first, second }.All(t =>
                t.dtype == parameter.dtype && t.device_type == DeviceType.CPU && t.is_contiguous() && t.numel() == parameter.numel());
    }

    /// <summary>Puts a parameter on the list; the tensors must stay alive until <see cref="Run"/>.</summary>
    public void Add(Tensor parameter, Tensor gradient, Tensor first, Tensor second, AdamWSettings settings)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        if (parameter.numel() == 0) return;
        bool half = parameter.dtype == ScalarType.BFloat16;
        nint p = Address(parameter), g = Address(gradient), m = Address(first), v = Address(second);
        int size = half ? 2 : 4;
        for (long from = 0; from < parameter.numel(); from += Chunk)
        {
            int count = (int)Math.Min(Chunk, parameter.numel() - from);
            nint offset = (nint)(from * size);
            _work.Add(new Work(p + offset, g + offset, m + offset, v + offset, count, half, settings));
        }
    }

    /// <summary>Steps everything on the list and empties it.</summary>
    public void Run()
    {
        if (_work.Count == 1) Step(_work[0]);
        else if (_work.Count > 1) Parallel.For(0, _work.Count, i => Step(_work[i]));
        _work.Clear();
    }

    private static nint Address(Tensor tensor)
    {
        // The bytes are native memory that does not move; the span only shows where they are.
        var bytes = tensor.bytes;
        unsafe { return (nint)Unsafe.AsPointer(ref MemoryMarshal.GetReference(bytes)); }
    }

    private static unsafe void Step(Work w)
    {
        var f = new Factors(w.Settings);
        if (w.Half) StepHalf((ushort*)w.Parameter, (ushort*)w.Gradient, (ushort*)w.First, (ushort*)w.Second, w.Count, f);
        else StepSingle((float*)w.Parameter, (float*)w.Gradient, (float*)w.First, (float*)w.Second, w.Count, f);
    }

    private static unsafe void StepSingle(float* p, float* g, float* m, float* v, int count, Factors f)
    {
        int i = 0;
        for (; i <= count - Vector<float>.Count; i += Vector<float>.Count)
        {
            var gradient = Vector.Load(g + i) * f.GradientScale;
            var weight = Vector.Load(p + i) * f.Keep;
            var first = Vector.Load(m + i);
            first += (gradient - first) * f.FirstShare;
            var second = Vector.Load(v + i) * f.SecondKeep;
            second += gradient * f.SecondShare * gradient;
            var root = Vector.SquareRoot(second) / f.Correction + new Vector<float>(f.Epsilon);
            weight += first * f.MinusSize / root;
            Vector.Store(weight, p + i);
            Vector.Store(first, m + i);
            Vector.Store(second, v + i);
        }
        for (; i < count; i++)
        {
            float gradient = g[i] * f.GradientScale;
            m[i] += (gradient - m[i]) * f.FirstShare;
            v[i] = v[i] * f.SecondKeep + gradient * f.SecondShare * gradient;
            p[i] = p[i] * f.Keep + m[i] * f.MinusSize / (MathF.Sqrt(v[i]) / f.Correction + f.Epsilon);
        }
    }

    private static unsafe void StepHalf(ushort* p, ushort* g, ushort* m, ushort* v, int count, Factors f)
    {
        for (int i = 0; i < count; i++)
        {
            float gradient = Round(Widen(g[i]) * f.GradientScale);
            float weight = Round(Widen(p[i]) * f.Keep);
            float first = Widen(m[i]);
            first = Round(f.FirstShare < 0.5f ? first + f.FirstShare * (gradient - first) : gradient - (gradient - first) * (1 - f.FirstShare));
            float second = Round(Widen(v[i]) * f.SecondKeep);
            second = Round(second + f.SecondShare * gradient * gradient);
            float root = Round(Round(Round(MathF.Sqrt(second)) / f.Correction) + f.Epsilon);
            weight = Round(weight + f.MinusSize * first / root);
            p[i] = Narrow(weight);
            m[i] = Narrow(first);
            v[i] = Narrow(second);
        }
    }

    private static float Widen(ushort bits) => BitConverter.UInt32BitsToSingle((uint)bits << 16);

    private static ushort Narrow(float rounded) => (ushort)(BitConverter.SingleToUInt32Bits(rounded) >> 16);

    /// <summary>To the nearest bfloat16, ties to even; NaN stays NaN.</summary>
    private static float Round(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        if (float.IsNaN(value)) return BitConverter.UInt32BitsToSingle(0x7fc00000u);
        return BitConverter.UInt32BitsToSingle((bits + 0x7fffu + ((bits >> 16) & 1)) & 0xffff0000u);
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
