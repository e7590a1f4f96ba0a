using System.Runtime.CompilerServices;

namespace Peft.Quantization;

/// <summary>
/// One update of one parameter in one pass: per block of 256 the states are decoded, the parameter is updated in fp32 and rounded once,
/// and the states are encoded again, all in the first-level cache.
/// </summary>
internal readonly unsafe struct OptimizerStep<L, F, I>(
    UpdateNumbers numbers, void* parameter, ElementKind kind, void* gradient, ElementKind gradientKind, long count,
    void* state1, float* absmax1, void* state2, float* absmax2) : IBlockJob
    where L : struct, ILanes<F, I>
{
    private const int Block = OptimizerSlot.BlockSize;

    public void Run(long first, long end)
    {
        float* p = stackalloc float[4 * Block];
        float* g = p + Block, m = g + Block, v = m + Block;
        var map1 = EightBitMap.DynamicSigned;
        var map2 = EightBitMap.DynamicUnsigned;
        for (long block = first; block < end; block++)
        {
            long start = block * Block;
            int n = (int)Math.Min(Block, count - start), padded = (n + 15) & ~15;
            FloatElements.ToFloat<L, F, I>(parameter, kind, start, n, p, padded);
            FloatElements.ToFloat<L, F, I>(gradient, gradientKind, start, n, g, padded);
            Read(state1, absmax1, map1, block, n, padded, m);
            if (state2 is not null) Read(state2, absmax2, map2, block, n, padded, v);
            Update(p, g, m, v, padded);
            Write(parameter, kind, start, n, p);
            Keep(state1, absmax1, map1, block, n, padded, m);
            if (state2 is not null) Keep(state2, absmax2, map2, block, n, padded, v);
        }
    }

    private void Update(float* p, float* g, float* m, float* v, int padded)
    {
        switch (numbers.Rule)
        {
            case UpdateRule.Adam: Adam(p, g, m, v, padded); break;
            case UpdateRule.Lion: Lion(p, g, m, padded); break;
            default: Sgd(p, g, m, padded); break;
        }
    }

    private void Adam(float* p, float* g, float* m, float* v, int padded)
    {
        F b1 = L.Broadcast((float)numbers.Beta1), c1 = L.Broadcast((float)(1 - numbers.Beta1));
        F b2 = L.Broadcast((float)numbers.Beta2), c2 = L.Broadcast((float)(1 - numbers.Beta2));
        F keep = L.Broadcast(numbers.Keep), rate = L.Broadcast(numbers.CorrectedRate);
        F correction = L.Broadcast(numbers.Correction2), epsilon = L.Broadcast((float)numbers.Epsilon);
        F scale = L.Broadcast((float)numbers.GradientScale);
        for (int i = 0; i < padded; i += L.Count)
        {
            F gradient = L.Multiply(L.Load(g + i), scale);
            F first = L.Add(L.Multiply(b1, L.Load(m + i)), L.Multiply(c1, gradient));
            F second = L.Add(L.Multiply(b2, L.Load(v + i)), L.Multiply(L.Multiply(c2, gradient), gradient));
            F denominator = L.Add(L.Divide(L.SquareRoot(second), correction), epsilon);
            L.Store(p + i, L.Subtract(L.Multiply(L.Load(p + i), keep), L.Divide(L.Multiply(rate, first), denominator)));
            L.Store(m + i, first);
            L.Store(v + i, second);
        }
    }

    private void Lion(float* p, float* g, float* m, int padded)
    {
        F b1 = L.Broadcast((float)numbers.Beta1), c1 = L.Broadcast((float)(1 - numbers.Beta1));
        F b2 = L.Broadcast((float)numbers.Beta2), c2 = L.Broadcast((float)(1 - numbers.Beta2));
        F keep = L.Broadcast(numbers.Keep), rate = L.Broadcast((float)numbers.Rate), zero = L.Broadcast(0f);
        F scale = L.Broadcast((float)numbers.GradientScale);
        I one = L.AsInt(L.Broadcast(1f)), minus = L.AsInt(L.Broadcast(-1f));
        for (int i = 0; i < padded; i += L.Count)
        {
            F gradient = L.Multiply(L.Load(g + i), scale), momentum = L.Load(m + i);
            F direction = L.Add(L.Multiply(momentum, b1), L.Multiply(gradient, c1));
            F sign = L.AsFloat(L.Or(L.And(L.GreaterThan(direction, zero), one), L.And(L.GreaterThan(zero, direction), minus)));
            L.Store(p + i, L.Subtract(L.Multiply(L.Load(p + i), keep), L.Multiply(rate, sign)));
            L.Store(m + i, L.Add(L.Multiply(momentum, b2), L.Multiply(gradient, c2)));
        }
    }

    private void Sgd(float* p, float* g, float* m, int padded)
    {
        F b1 = L.Broadcast(numbers.Step == 1 ? 0f : (float)numbers.Beta1);      // the first step copies the gradient
        F decay = L.Broadcast((float)numbers.WeightDecay), rate = L.Broadcast((float)numbers.Rate);
        F scale = L.Broadcast((float)numbers.GradientScale);
        for (int i = 0; i < padded; i += L.Count)
        {
            F value = L.Load(p + i);
            F gradient = L.Add(L.Multiply(L.Load(g + i), scale), L.Multiply(decay, value));
            F momentum = L.Add(L.Multiply(L.Load(m + i), b1), gradient);
            L.Store(p + i, L.Subtract(value, L.Multiply(rate, momentum)));
            L.Store(m + i, momentum);
        }
    }

    /// <summary>The block's moment in fp32, zeros after its end.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Read(void* state, float* absmax, EightBitMap map, long block, int n, int padded, float* target)
    {
        long start = block * Block;
        if (absmax is null)
        {
            FloatElements.ToFloat<L, F, I>(state, ElementKind.Float32, start, n, target, padded);
            return;
        }
        byte* codes = (byte*)state + start;
        F factor = L.Broadcast(absmax[block]);
        int i = 0;
        for (; i <= n - L.Count; i += L.Count) L.Store(target + i, L.Multiply(L.Gather(map.ValuesPointer, L.LoadByte(codes + i)), factor));
        for (; i < n; i++) target[i] = map.ValuesPointer[codes[i]] * absmax[block];
        for (; i < padded; i++) target[i] = 0f;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Keep(void* state, float* absmax, EightBitMap map, long block, int n, int padded, float* values)
    {
        long start = block * Block;
        if (absmax is null)
        {
            Write(state, ElementKind.Float32, start, n, values);
            return;
        }
        for (int i = n; i < padded; i++) values[i] = 0f;
        absmax[block] = BlockwiseEncode<L, F, I>.Encode(values, n, padded, n == Block, map, (byte*)state + start);
    }

    private static void Write(void* target, ElementKind kind, long start, int n, float* values)
    {
        int i = 0;
        for (; i <= n - L.Count; i += L.Count) FloatElements.Store<L, F, I>(target, kind, start + i, L.Load(values + i));
        for (; i < n; i++) FloatElements.Store<Lanes1, float, int>(target, kind, start + i, values[i]);
    }
}
