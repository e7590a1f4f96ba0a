namespace Peft.Quantization;

/// <summary>The sixteen values of a 4-bit code and what is needed to find the nearest one.</summary>
/// <remarks>
/// Values are those of bitsandbytes (<c>get_4bit_type</c>). Nearest means: the number of midpoints below the value, so a value on a
/// midpoint takes the lower code. In <c>fp4</c> the two zeros (codes 0 and 8) are neighbours in this order.
/// </remarks>
public sealed class FourBitTable
{
    private static readonly FourBitTable[] Known =
    [
        new(QuantType.Nf4,
        [
            -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
            -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
            0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
        ]),
        new(QuantType.Fp4, [.. new[] { 0f, 0.0625f, 8f, 12f, 4f, 6f, 2f, 3f, 0f, -0.0625f, -8f, -12f, -4f, -6f, -2f, -3f }.Select(v => v / 12f)]),
    ];

    private readonly float[] _codes = GC.AllocateArray<float>(16, pinned: true);
    private readonly float[] _midpoints = GC.AllocateArray<float>(16, pinned: true);
    private readonly byte[] _order = GC.AllocateArray<byte>(16, pinned: true);

    private FourBitTable(QuantType type, float[] codes)
    {
        Type = type;
        codes.CopyTo(_codes, 0);
        // OrderBy is stable, so of fp4's two zeros code 0 comes first.
        byte[] order = [.. Enumerable.Range(0, 16).OrderBy(i => codes[i]).Select(i => (byte)i)];
        order.CopyTo(_order, 0);
        for (int i = 0; i < 15; i++) _midpoints[i] = (codes[order[i]] + codes[order[i + 1]]) / 2f;
        _midpoints[15] = float.PositiveInfinity;
    }

    /// <summary>The code's name.</summary>
    public QuantType Type { get; }

    /// <summary>The sixteen values, by stored code.</summary>
    public ReadOnlySpan<float> Codes => _codes;

    /// <summary>The fifteen midpoints between neighbouring values, ascending.</summary>
    public ReadOnlySpan<float> Midpoints => _midpoints.AsSpan(0, 15);

    /// <summary>The stored codes in ascending order of their values.</summary>
    public ReadOnlySpan<byte> Order => _order;

    /// <summary>The code's name and values as bitsandbytes knows them.</summary>
    /// <param name="type">nf4 or fp4.</param>
    /// <exception cref="UnsupportedQuantTypeException">Another name.</exception>
    public static FourBitTable For(QuantType type)
        => Array.Find(Known, t => t.Type == type) ?? throw new UnsupportedQuantTypeException(type.Name, [.. Known.Select(t => t.Type.Name)]);

    internal unsafe float* CodesPointer => Pinned.Pointer(_codes);

    internal unsafe float* MidpointsPointer => Pinned.Pointer(_midpoints);

    internal unsafe byte* OrderPointer => Pinned.Pointer(_order);
}
