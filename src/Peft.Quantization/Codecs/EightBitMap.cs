using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>A 256-entry map of an 8-bit code, in ascending order, with the search for the nearest entry.</summary>
/// <remarks>
/// The dynamic maps are those of Dettmers et al. (8-bit Optimizers via Block-wise Quantization, 2022) as bitsandbytes makes them: the signed one has 127
/// negative values, 0 at index 127 and 128 positive ones up to 1; -1 is not in it. A value on a midpoint takes the lower entry.
/// </remarks>
public sealed class EightBitMap
{
    /// <summary>Entries of a map.</summary>
    public const int Size = 256;

    private readonly float[] _values = GC.AllocateArray<float>(Size, pinned: true);
    private readonly float[] _midpoints = GC.AllocateArray<float>(Size, pinned: true);

    /// <summary>Makes a map of given values.</summary>
    /// <param name="name">What messages call it.</param>
    /// <param name="values">256 values, ascending, within [-1, 1].</param>
    /// <exception cref="QuantMapException">Not 256 values, or not ascending.</exception>
    public EightBitMap(string name, ReadOnlySpan<float> values)
    {
        if (values.Length != Size) throw new QuantMapException($"Map '{name}' has {values.Length} entries; an 8-bit map has {Size}.");
        for (int i = 1; i < Size; i++)
            if (!(values[i] >= values[i - 1]))
                throw new QuantMapException($"Map '{name}' is not ascending at entry {i}: {values[i - 1]} is followed by {values[i]}. Sort it, and the codes with it.");
        Name = name;
        values.CopyTo(_values);
        for (int i = 0; i < Size - 1; i++) _midpoints[i] = (values[i] + values[i + 1]) / 2f;
        _midpoints[Size - 1] = float.PositiveInfinity;           // a sentinel that nothing is above
        Search = new NearestEntrySearch(_midpoints);
    }

    /// <summary>For signed values (first moments, block statistics less their mean).</summary>
    public static EightBitMap DynamicSigned { get; } = new("dynamic signed", Dynamic(signed: true));

    /// <summary>For values that are never negative (second moments).</summary>
    public static EightBitMap DynamicUnsigned { get; } = new("dynamic unsigned", Dynamic(signed: false));

    /// <summary>Evenly spaced over [-1, 1], with one zero more.</summary>
    public static EightBitMap LinearSigned { get; } = new("linear signed", Linear(signed: true));

    /// <summary>Evenly spaced over [0, 1].</summary>
    public static EightBitMap LinearUnsigned { get; } = new("linear unsigned", Linear(signed: false));

    /// <summary>What messages call it.</summary>
    public string Name { get; }

    /// <summary>The values, by code.</summary>
    public ReadOnlySpan<float> Values => _values;

    internal NearestEntrySearch Search { get; }

    internal unsafe float* ValuesPointer => Pinned.Pointer(_values);

    internal unsafe float* MidpointsPointer => Pinned.Pointer(_midpoints);

    /// <summary>The map as a tensor.</summary>
    /// <returns>A fresh (256) fp32 tensor on the CPU, in the current dispose scope.</returns>
    public Tensor ToTensor() => tensor(_values);

    /// <summary>Throws unless a recorded map is this one.</summary>
    /// <param name="map">(256) fp32, as found in a file.</param>
    /// <param name="name">The tensor's name in the file.</param>
    /// <exception cref="QuantMapException">It differs.</exception>
    public void RequireEqual(Tensor map, string name)
    {
        ArgumentNullException.ThrowIfNull(map);
        using var scope = NewDisposeScope();
        if (map.numel() == Size && map.cpu().to(ScalarType.Float32).reshape(Size).eq(ToTensor()).all().ToBoolean()) return;
        throw new QuantMapException($"{name}: the map ({string.Join(", ", map.shape)}) is not bitsandbytes' {Name} map. "
            + "The codes were made with another map; convert the file with the library that wrote it.");
    }

    private static float[] Dynamic(bool signed)
    {
        const int exponents = 7;
        var values = new List<float>(Size);
        for (int i = 0; i < exponents; i++)
        {
            int items = 1 << (signed ? i : i + 1);
            float[] boundaries = Linspace(0.1f, 1f, items + 1);
            float scale = (float)Math.Pow(10, i - (exponents - 1));
            for (int j = 0; j < items; j++)
            {
                float value = (boundaries[j] + boundaries[j + 1]) / 2f * scale;
                values.Add(value);
                if (signed) values.Add(-value);
            }
        }
        values.Add(0f);
        values.Add(1f);
        while (values.Count < Size) values.Add(0f);
        values.Sort();
        return [.. values];
    }

    private static float[] Linear(bool signed)
    {
        int count = signed ? Size - 1 : Size;
        var values = Linspace(signed ? -1f : 0f, 1f, count).ToList();
        if (signed) values.Insert(count / 2, 0f);
        return [.. values];
    }

    /// <summary>torch.linspace in fp32: from both ends towards the middle, product and sum rounded once.</summary>
    private static float[] Linspace(float start, float end, int count)
    {
        float step = (end - start) / (count - 1);
        var values = new float[count];
        for (int i = 0; i < count; i++)
            values[i] = i < count / 2
                ? MathF.FusedMultiplyAdd(step, i, start)
                : MathF.FusedMultiplyAdd(-step, count - i - 1, end);
        return values;
    }
}
