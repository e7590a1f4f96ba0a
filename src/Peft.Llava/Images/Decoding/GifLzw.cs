namespace Peft.Llava;

/// <summary>GIF's LZW.</summary>
internal static class GifLzw
{
    public const int MaxBits = 12;
    public const int TableSize = 1 << MaxBits;

    /// <summary>Decodes sub-blocks until all pixels are there; what follows is not looked at.</summary>
    /// <param name="data">The sub-blocks: a length byte each, then so many bytes.</param>
    /// <param name="bits">Bits of a pixel, as the frame says.</param>
    /// <param name="pixels">Receives the colour indices.</param>
    /// <param name="context">For faults.</param>
    public static void Decode(ReadOnlySpan<byte> data, int bits, Span<byte> pixels, DecodeContext context)
    {
        Span<ushort> link = stackalloc ushort[TableSize];
        Span<byte> last = stackalloc byte[TableSize];
        Span<byte> reversed = stackalloc byte[TableSize + 1];
        int clear = 1 << bits, end = clear + 1, next = clear + 2, size = bits + 1;
        int previous = -1, first = 0, at = 0, block = 0, held = 0, written = 0;
        uint buffer = 0;
        while (written < pixels.Length)
        {
            while (held < size)
            {
                if (block == 0)
                {
                    if (at >= data.Length || at + 1 + data[at] > data.Length)
                        throw context.Truncated($"The file ends after {written} of {pixels.Length} pixels");
                    block = data[at++];
                    continue;
                }
                buffer |= (uint)data[at++] << held;
                held += 8;
                block--;
            }
            int code = (int)(buffer & ((1u << size) - 1));
            buffer >>= size;
            held -= size;
            if (code == clear)
            {
                (next, size, previous) = (clear + 2, bits + 1, -1);
                continue;
            }
            if (code == end) throw context.Truncated($"Its data end after {written} of {pixels.Length} pixels");
            if (code > next || (previous < 0 && code > clear)) throw context.Corrupt($"Its data hold a code that was not defined, after {written} pixels");
            int count = 0, walk = code;
            if (previous < 0)
            {
                reversed[count++] = (byte)code;
                first = code;
            }
            else
            {
                if (walk == next)
                {
                    reversed[count++] = (byte)first;
                    walk = previous;
                }
                while (walk >= clear)
                {
                    // Ends: a code's link is always an earlier code.
                    reversed[count++] = last[walk];
                    walk = link[walk];
                }
                first = walk;
                reversed[count++] = (byte)walk;
                if (next < TableSize)
                {
                    last[next] = (byte)walk;
                    link[next] = (ushort)previous;
                    if (next == (1 << size) - 1 && size < MaxBits) size++;
                    next++;
                }
            }
            previous = code;
            for (int i = count - 1; i >= 0 && written < pixels.Length; i--) pixels[written++] = reversed[i];
        }
    }
}
