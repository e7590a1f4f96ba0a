namespace Peft.Llava;

/// <summary>
/// Pillow's integer weights for one axis: per output pixel the first input pixel and 22-bit fixed-point weights that sum to about 2^22.
/// Computed in float64 exactly as Pillow does; a weight off by one shows in the picture.
/// </summary>
internal sealed class FilterWeights
{
    /// <summary>Fractional bits of a weight: 32 less 8 for the pixel and 2 for overshoot.</summary>
    public const int FractionBits = 22;

    /// <summary>Taps are padded with zero weights to a multiple of this, so that vector code needs no remainder.</summary>
    public const int TapStep = 4;

    private FilterWeights(int count, int stride)
    {
        First = new int[count];
        Taps = new int[count];
        Stride = stride;
        Values = new int[count * stride];
    }

    /// <summary>Per output pixel: the first input pixel.</summary>
    public int[] First { get; }

    /// <summary>Per output pixel: how many input pixels count.</summary>
    public int[] Taps { get; }

    /// <summary>Weights stored per output pixel, a multiple of <see cref="TapStep"/>.</summary>
    public int Stride { get; }

    /// <summary>[outputs, Stride], zero beyond <see cref="Taps"/>.</summary>
    public int[] Values { get; }

    /// <summary>Weights of the output pixels [start, start + count) of an axis that goes from <paramref name="input"/> to <paramref name="output"/> pixels.</summary>
    public static FilterWeights Create(int input, int output, int start, int count, ResizeFilter filter)
    {
        double scale = (double)input / output;
        double widening = Math.Max(scale, 1.0);                  // when enlarging, the filter is not narrowed
        double support = Support(filter) * widening;
        double inverse = 1.0 / widening;
        int most = Math.Min(input, (int)Math.Ceiling(support) * 2 + 1);
        var weights = new FilterWeights(count, (most + TapStep - 1) / TapStep * TapStep);
        double[] real = new double[most];
        for (int i = 0; i < count; i++)
        {
            double centre = (start + i + 0.5) * scale;
            int low = Math.Max((int)(centre - support + 0.5), 0);
            int taps = Math.Min((int)(centre + support + 0.5), input) - low;
            double total = 0;
            for (int t = 0; t < taps; t++)
            {
                real[t] = Evaluate(filter, (t + low - centre + 0.5) * inverse);
                total += real[t];
            }
            var row = weights.Values.AsSpan(i * weights.Stride, taps);
            for (int t = 0; t < taps; t++)
            {
                double w = total != 0 ? real[t] / total : real[t];
                row[t] = (int)(w * (1 << FractionBits) + (w >= 0 ? 0.5 : -0.5));
            }
            weights.First[i] = low;
            weights.Taps[i] = taps;
        }
        return weights;
    }

    private static double Support(ResizeFilter filter) => filter switch
    {
        ResizeFilter.Box => 0.5,
        ResizeFilter.Bilinear or ResizeFilter.Hamming => 1,
        ResizeFilter.Bicubic => 2,
        ResizeFilter.Lanczos => 3,
        _ => throw new ArgumentOutOfRangeException(nameof(filter), filter, "This filter has no weights."),
    };

    private static double Evaluate(ResizeFilter filter, double x)
    {
        double a = Math.Abs(x);
        switch (filter)
        {
            case ResizeFilter.Box:
                return x is > -0.5 and <= 0.5 ? 1 : 0;
            case ResizeFilter.Bilinear:
                return a < 1 ? 1 - a : 0;
            case ResizeFilter.Hamming:
                if (a == 0) return 1;
                if (a >= 1) return 0;
                a *= Math.PI;
                return Math.Sin(a) / a * (0.54f + 0.46f * Math.Cos(a));      // Pillow's two constants are float32
            case ResizeFilter.Bicubic:
                if (a < 1) return (1.5 * a - 2.5) * a * a + 1;
                return a < 2 ? ((-0.5 * a + 2.5) * a - 4) * a + 2 : 0;
            default:
                return x is >= -3 and < 3 ? Sinc(x) * Sinc(x / 3) : 0;
        }
    }

    private static double Sinc(double x)
    {
        if (x == 0) return 1;
        x *= Math.PI;
        return Math.Sin(x) / x;
    }
}
