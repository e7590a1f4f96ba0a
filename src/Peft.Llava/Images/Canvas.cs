using System.Buffers;

namespace Peft.Llava;

/// <summary>A pooled RGB picture on which others are put.</summary>
internal sealed class Canvas : IDisposable
{
    private readonly byte[] _rented;

    /// <summary>A canvas of one colour, black by default.</summary>
    public Canvas(ImageSize size, ReadOnlySpan<byte> colour = default)
    {
        Size = size;
        _rented = ArrayPool<byte>.Shared.Rent(ImageShapeException.CheckedBytes(size.Width, size.Height));
        if (colour.IsEmpty)
        {
            Pixels.Clear();
            return;
        }
        var first = Row(0);
        for (int x = 0; x < size.Width; x++) colour[..3].CopyTo(first[(3 * x)..]);
        for (int y = 1; y < size.Height; y++) first.CopyTo(Row(y));
    }

    public ImageSize Size { get; }

    public Span<byte> Pixels => _rented.AsSpan(0, 3 * Size.Width * Size.Height);

    private Span<byte> Row(int y) => _rented.AsSpan(3 * Size.Width * y, 3 * Size.Width);

    /// <summary>Puts a picture on the canvas as it is.</summary>
    public void Paste(RgbImage image, ImagePlacement place)
    {
        for (int y = 0; y < image.Height; y++) image.Row(y).CopyTo(Row(place.Y + y)[(3 * place.X)..]);
    }

    /// <summary>Puts a picture on the canvas, resized as Pillow does without a filter's name: bicubic.</summary>
    public void PasteResized(RgbImage image, ImagePlacement place, PassOrder order)
    {
        var window = new ImageWindow(0, 0, place.Picture.Width, place.Picture.Height);
        var target = Pixels[(3 * (Size.Width * place.Y + place.X))..];
        PilResize.ResizeWindow(image, place.Picture, window, target, 3 * Size.Width, ResizeFilter.Bicubic, order);
    }

    /// <summary>Copies a part to another canvas; black where it reaches over the edge.</summary>
    public void Cut(int x, int y, Canvas tile)
    {
        int width = Math.Min(tile.Size.Width, Size.Width - x), height = Math.Min(tile.Size.Height, Size.Height - y);
        if (width < tile.Size.Width || height < tile.Size.Height) tile.Pixels.Clear();
        for (int row = 0; row < height; row++) Row(y + row).Slice(3 * x, 3 * width).CopyTo(tile.Row(row));
    }

    public void Dispose() => ArrayPool<byte>.Shared.Return(_rented);
}
