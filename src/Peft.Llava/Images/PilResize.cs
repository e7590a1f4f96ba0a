using System.Buffers;

namespace Peft.Llava;

/// <summary>Pillow's <c>Image.resize</c>, byte for byte: two integer passes, rounded to 8 bits between them.</summary>
public static class PilResize
{
    /// <summary>Resizes a picture.</summary>
    /// <param name="image">The picture; left as it is.</param>
    /// <param name="size">The size wanted.</param>
    /// <param name="filter">The filter.</param>
    /// <param name="order">Which Pillow's pass order.</param>
    /// <returns>A fresh picture, also if the size is the same.</returns>
    public static RgbImage Resize(
        RgbImage image, ImageSize size, ResizeFilter filter = ResizeFilter.Bicubic, PassOrder order = PassOrder.Current)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size.Width, nameof(size));
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size.Height, nameof(size));
        var result = new RgbImage(size.Width, size.Height);
        ResizeWindow(image, size, new ImageWindow(0, 0, size.Width, size.Height), result.Pixels, 3 * size.Width, filter, order);
        return result;
    }

    /// <summary>Resizes a picture, but computes only a window of the result: what a crop would keep.</summary>
    /// <param name="image">The picture; left as it is.</param>
    /// <param name="size">The size of the whole result.</param>
    /// <param name="window">The part of the result that is wanted; inside <paramref name="size"/>.</param>
    /// <param name="destination">Receives the window's rows, RGB.</param>
    /// <param name="stride">Bytes from one row of <paramref name="destination"/> to the next.</param>
    /// <param name="filter">The filter.</param>
    /// <param name="order">Which Pillow's pass order.</param>
    public static void ResizeWindow(
        RgbImage image, ImageSize size, ImageWindow window, Span<byte> destination, int stride,
        ResizeFilter filter = ResizeFilter.Bicubic, PassOrder order = PassOrder.Current)
    {
        ArgumentNullException.ThrowIfNull(image);
        ResizeWindow(image.Pixels, image.Size, size, window, destination, stride, filter, order);
    }

    /// <summary>The same over pixels that need not fill an array of their own.</summary>
    internal static void ResizeWindow(
        ReadOnlySpan<byte> pixels, ImageSize from, ImageSize size, ImageWindow window, Span<byte> destination, int stride,
        ResizeFilter filter, PassOrder order)
    {
        if (window.X < 0 || window.Y < 0 || window.Width < 1 || window.Height < 1
            || window.X + window.Width > size.Width || window.Y + window.Height > size.Height)
            throw new ArgumentOutOfRangeException(nameof(window), window, $"The window lies outside the resized picture of {size}.");
        if (stride < 3 * window.Width || destination.Length < (long)stride * (window.Height - 1) + 3 * window.Width)
            throw new ArgumentException($"The destination is too small for {window.Width}x{window.Height} pixels with a stride of {stride}.", nameof(destination));
        if (filter == ResizeFilter.Nearest)
        {
            Nearest(pixels, from, size, window, destination, stride);
            return;
        }
        int row = 3 * from.Width;
        bool horizontal = size.Width != from.Width, vertical = size.Height != from.Height;
        if (horizontal && vertical)
        {
            if (order == PassOrder.Current && VerticalFirst(from, size)) VerticalThenHorizontal(pixels, from, size, window, destination, stride, filter);
            else HorizontalThenVertical(pixels, new ImagePlacement(from, 0, 0, from), [], size, window, destination, stride, filter);
        }
        else if (horizontal)
        {
            var weights = FilterWeights.Create(from.Width, size.Width, window.X, window.Width, filter);
            ResizePasses.Horizontal(pixels[(row * window.Y)..], row, from.Width, window.Height, weights, destination, stride, 0, from.Width, []);
        }
        else if (vertical)
        {
            var weights = FilterWeights.Create(from.Height, size.Height, window.Y, window.Height, filter);
            ResizePasses.Vertical(pixels[(3 * window.X)..], row, 3 * window.Width, weights, 0, destination, stride);
        }
        else
        {
            for (int y = 0; y < window.Height; y++)
                pixels.Slice(row * (window.Y + y) + 3 * window.X, 3 * window.Width).CopyTo(destination[(stride * y)..]);
        }
    }

    /// <summary>Pillow 13's rule, found by experiment on 1,500 sizes.</summary>
    private static bool VerticalFirst(ImageSize from, ImageSize to)
        => to.Height < from.Height && from.Height - to.Height > 2 * (from.Width - to.Width);

    /// <summary>
    /// Resizes a picture padded with a colour, as if the padded picture had been made: both passes take the padding where it would lie.
    /// Needs a resize of both sides with the horizontal pass first, see <see cref="TakesPadding"/>.
    /// </summary>
    internal static void ResizePaddedWindow(
        RgbImage image, ImagePlacement place, ReadOnlySpan<byte> colour, ImageSize size, ImageWindow window, Span<byte> destination, int stride,
        ResizeFilter filter)
        => HorizontalThenVertical(image.Pixels, place, colour, size, window, destination, stride, filter);

    /// <summary>Whether <see cref="ResizePaddedWindow"/> can do this resize.</summary>
    internal static bool TakesPadding(ImageSize from, ImageSize size, ResizeFilter filter, PassOrder order)
        => filter != ResizeFilter.Nearest && from.Width != size.Width && from.Height != size.Height
            && (order == PassOrder.HorizontalFirst || !VerticalFirst(from, size));

    private static void HorizontalThenVertical(
        ReadOnlySpan<byte> pixels, ImagePlacement place, ReadOnlySpan<byte> colour, ImageSize size, ImageWindow window,
        Span<byte> destination, int stride, ResizeFilter filter)
    {
        var across = FilterWeights.Create(place.Canvas.Width, size.Width, window.X, window.Width, filter);
        var down = FilterWeights.Create(place.Canvas.Height, size.Height, window.Y, window.Height, filter);
        int first = down.First[0], end = down.First[^1] + down.Taps[^1];                  // only rows that the second pass reads
        int between = 3 * window.Width, sourceRow = 3 * place.Picture.Width;
        byte[] rented = ArrayPool<byte>.Shared.Rent(ImageShapeException.CheckedBytes(window.Width, end - first));
        try
        {
            var middle = rented.AsSpan(0, between * (end - first));
            int top = Math.Clamp(place.Y, first, end), bottom = Math.Clamp(place.Y + place.Picture.Height, first, end);
            if (top > first || bottom < end)
            {
                // All rows of padding look alike: one is filtered, the others are its copies.
                int model = top > first ? 0 : bottom - first;
                var one = middle.Slice(between * model, between);
                ResizePasses.Horizontal([], 0, 0, 1, across, one, between, 0, place.Canvas.Width, colour);
                for (int y = 0; y < end - first; y++)
                    if ((y < top - first || y >= bottom - first) && y != model) one.CopyTo(middle[(between * y)..]);
            }
            if (bottom > top)
                ResizePasses.Horizontal(
                    pixels[(sourceRow * (top - place.Y))..], sourceRow, place.Picture.Width, bottom - top, across, middle[(between * (top - first))..],
                    between, place.X, place.Canvas.Width, colour);
            ResizePasses.Vertical(middle, between, between, down, first, destination, stride);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private static void VerticalThenHorizontal(
        ReadOnlySpan<byte> pixels, ImageSize from, ImageSize size, ImageWindow window, Span<byte> destination, int stride, ResizeFilter filter)
    {
        var across = FilterWeights.Create(from.Width, size.Width, window.X, window.Width, filter);
        var down = FilterWeights.Create(from.Height, size.Height, window.Y, window.Height, filter);
        int between = 3 * from.Width;
        byte[] rented = ArrayPool<byte>.Shared.Rent(ImageShapeException.CheckedBytes(from.Width, window.Height));
        try
        {
            var middle = rented.AsSpan(0, between * window.Height);
            ResizePasses.Vertical(pixels, between, between, down, 0, middle, between);
            ResizePasses.Horizontal(middle, between, from.Width, window.Height, across, destination, stride, 0, from.Width, []);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private static void Nearest(
        ReadOnlySpan<byte> pixels, ImageSize from, ImageSize size, ImageWindow window, Span<byte> destination, int stride)
    {
        double scaleX = (double)from.Width / size.Width, scaleY = (double)from.Height / size.Height;
        for (int y = 0; y < window.Height; y++)
        {
            var row = pixels[(3 * from.Width * Math.Min((int)((window.Y + y + 0.5) * scaleY), from.Height - 1))..];
            var to = destination.Slice(stride * y, 3 * window.Width);
            for (int x = 0; x < window.Width; x++)
                row.Slice(3 * Math.Min((int)((window.X + x + 0.5) * scaleX), from.Width - 1), 3).CopyTo(to[(3 * x)..]);
        }
    }
}
