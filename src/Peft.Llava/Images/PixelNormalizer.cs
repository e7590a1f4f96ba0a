using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Peft.Llava;

/// <summary>
/// Rescaling and normalisation of 8-bit channels as transformers does them: the product with the factor in float64, rounded once to
/// float32, then <c>(x - mean) / std</c> in float32. A table of 3 x 256 values gives the very bits.
/// </summary>
public sealed class PixelNormalizer
{
    private readonly float[] _table = new float[3 * 256];

    /// <summary>Builds the table.</summary>
    /// <param name="rescaleFactor">Null to leave the levels 0 to 255 as they are.</param>
    /// <param name="mean">Per channel R, G, B; null to leave out the normalisation.</param>
    /// <param name="std">Per channel R, G, B; goes with <paramref name="mean"/>.</param>
    public PixelNormalizer(double? rescaleFactor, IReadOnlyList<double>? mean, IReadOnlyList<double>? std)
    {
        if (mean is not null) ArgumentOutOfRangeException.ThrowIfNotEqual(mean.Count, 3, nameof(mean));
        if (mean is not null) ArgumentOutOfRangeException.ThrowIfNotEqual(std?.Count ?? 0, 3, nameof(std));
        for (int channel = 0; channel < 3; channel++)
        {
            for (int level = 0; level < 256; level++)
            {
                float x = rescaleFactor is double factor ? (float)(level * factor) : level;
                if (mean is not null) x = (x - (float)mean[channel]) / (float)std![channel];
                _table[256 * channel + level] = x;
            }
        }
    }

    /// <summary>The value of a level.</summary>
    /// <param name="channel">0 red, 1 green, 2 blue.</param>
    /// <param name="level">0 to 255.</param>
    public float this[int channel, byte level] => _table[256 * channel + level];

    /// <summary>Turns RGB pixels into three planes.</summary>
    /// <param name="pixels">RGB bytes, n * 3.</param>
    /// <param name="planes">Receives float32 [3, n].</param>
    public void Apply(ReadOnlySpan<byte> pixels, Span<float> planes)
    {
        int count = pixels.Length / 3;
        if (planes.Length != pixels.Length || pixels.Length != 3 * count)
            throw new ArgumentException($"{pixels.Length} bytes of RGB need three planes of {count} values, not {planes.Length} values.", nameof(planes));
        ref byte from = ref MemoryMarshal.GetReference(pixels);
        ref float red = ref MemoryMarshal.GetReference(planes);
        ref float green = ref Unsafe.Add(ref red, count);
        ref float blue = ref Unsafe.Add(ref green, count);
        ref float table = ref MemoryMarshal.GetArrayDataReference(_table);
        for (int i = 0, at = 0; i < count; i++, at += 3)
        {
            Unsafe.Add(ref red, i) = Unsafe.Add(ref table, (int)Unsafe.Add(ref from, at));
            Unsafe.Add(ref green, i) = Unsafe.Add(ref table, 256 + Unsafe.Add(ref from, at + 1));
            Unsafe.Add(ref blue, i) = Unsafe.Add(ref table, 512 + Unsafe.Add(ref from, at + 2));
        }
    }
}
