using System.Buffers;

namespace Peft.Llava;

/// <summary>
/// CLIP's picture processing with LLaVA's aspect policies around it, equal to <c>process_images</c> with CLIPImageProcessor of
/// transformers 4.37 bit for bit (pictures 1 or 3 pixels high, which that version garbles, are done right). Threads may share one.
/// </summary>
public sealed class ClipImageProcessor : IImageProcessor
{
    private readonly ImageProcessorConfig _config;
    private readonly IReadOnlyList<ImageSize> _pinpoints;
    private readonly byte[] _padding;

    /// <summary>Creates a processor.</summary>
    /// <param name="config">CLIP's settings.</param>
    /// <param name="aspect">What is done to pictures that are not square.</param>
    /// <param name="pinpoints">The canvases of <see cref="AspectPolicy.AnyResolution"/>, width first; not used otherwise.</param>
    /// <param name="order">Which Pillow's order of passes.</param>
    /// <exception cref="ImageProcessorConfigException">The settings are unusable, or do not go with the policy.</exception>
    public ClipImageProcessor(
        ImageProcessorConfig config, AspectPolicy aspect = AspectPolicy.Square, IReadOnlyList<ImageSize>? pinpoints = null,
        PassOrder order = PassOrder.Current)
    {
        ArgumentNullException.ThrowIfNull(config);
        var problems = config.Problems().ToList();
        if (aspect == AspectPolicy.AnyResolution)
        {
            if (pinpoints is null || pinpoints.Count == 0) problems.Add("The any-resolution policy needs image_grid_pinpoints, and there are none.");
            if (!config.DoResize || config.ShortestEdge is null) problems.Add("The any-resolution policy needs size.shortest_edge.");
        }
        if (problems.Count > 0) throw new ImageProcessorConfigException("The options", problems);
        _config = config;
        _pinpoints = pinpoints ?? [];
        _padding = [.. config.Mean.Select(m => (byte)Math.Clamp((int)(m * 255), 0, 255))];
        Aspect = aspect;
        Order = order;
        Normalizer = new PixelNormalizer(config.RescaleFactor, config.DoNormalize ? config.Mean : null, config.Std);
    }

    /// <summary>CLIP's settings.</summary>
    public ImageProcessorConfig Config => _config;

    /// <summary>What is done to pictures that are not square.</summary>
    public AspectPolicy Aspect { get; }

    /// <summary>Which Pillow's order of passes.</summary>
    public PassOrder Order { get; }

    /// <summary>Levels to values.</summary>
    public PixelNormalizer Normalizer { get; }

    /// <inheritdoc/>
    public int TileSize => _config.CropSize;

    /// <inheritdoc/>
    public int TileCount(ImageSize size)
    {
        if (Aspect != AspectPolicy.AnyResolution) return 1;
        var (columns, rows) = AnyResolutionGrid.TileCounts(AnyResolutionGrid.SelectBestResolution(size, _pinpoints), TileSize);
        return 1 + columns * rows;
    }

    /// <inheritdoc/>
    public void Process(RgbImage image, Span<float> destination)
    {
        ArgumentNullException.ThrowIfNull(image);
        int tiles = TileCount(image.Size), values = 3 * TileSize * TileSize;
        if (destination.Length != (long)tiles * values)
            throw new ArgumentException($"{tiles} tile(s) of 3x{TileSize}x{TileSize} are {(long)tiles * values} values, not {destination.Length}.", nameof(destination));
        byte[] rented = ArrayPool<byte>.Shared.Rent(tiles * values);
        try
        {
            var levels = rented.AsSpan(0, tiles * values);
            WriteTiles(image, levels);
            for (int i = 0; i < tiles; i++) Normalizer.Apply(levels.Slice(values * i, values), destination.Slice(values * i, values));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    /// <summary>The tiles before rescaling and normalisation, as pictures.</summary>
    /// <param name="image">The decoded picture.</param>
    /// <returns><see cref="TileCount"/> fresh pictures of C x C.</returns>
    public IReadOnlyList<RgbImage> Tiles(RgbImage image)
    {
        ArgumentNullException.ThrowIfNull(image);
        int tiles = TileCount(image.Size), values = 3 * TileSize * TileSize;
        byte[] levels = new byte[tiles * values];
        WriteTiles(image, levels);
        return [.. Enumerable.Range(0, tiles).Select(i => new RgbImage(TileSize, TileSize, levels.AsSpan(values * i, values).ToArray()))];
    }

    private void WriteTiles(RgbImage image, Span<byte> levels)
    {
        switch (Aspect)
        {
            case AspectPolicy.Pad when image.Width != image.Height:
                WritePadded(image, levels);
                break;
            case AspectPolicy.AnyResolution:
                WriteGrid(image, levels);
                break;
            default:
                ResizeAndCrop(image.Pixels, image.Size, levels);
                break;
        }
    }

    private void WritePadded(RgbImage image, Span<byte> levels)
    {
        var place = AnyResolutionGrid.ExpandToSquare(image.Size);
        var size = SizeAfterResize(place.Canvas);
        if (PilResize.TakesPadding(place.Canvas, size, _config.Resample, Order))
        {
            var (window, start) = Crop(size, levels);
            PilResize.ResizePaddedWindow(image, place, _padding, size, window, levels[start..], 3 * TileSize, _config.Resample);
            return;
        }
        using var canvas = new Canvas(place.Canvas, _padding);
        canvas.Paste(image, place);
        ResizeAndCrop(canvas.Pixels, canvas.Size, levels);
    }

    /// <summary>The whole picture squashed, then the tiles of the best resolution; each goes through CLIP's steps once more.</summary>
    private void WriteGrid(RgbImage image, Span<byte> levels)
    {
        int edge = _config.ShortestEdge!.Value, values = 3 * TileSize * TileSize;
        var fit = AnyResolutionGrid.ResizeAndPad(image.Size, AnyResolutionGrid.SelectBestResolution(image.Size, _pinpoints));
        using (var whole = new Canvas(new ImageSize(edge, edge)))
        {
            whole.PasteResized(image, new ImagePlacement(whole.Size, 0, 0, whole.Size), Order);
            ResizeAndCrop(whole.Pixels, whole.Size, levels[..values]);
        }
        using var canvas = new Canvas(fit.Canvas);
        canvas.PasteResized(image, fit, Order);
        using var tile = new Canvas(new ImageSize(TileSize, TileSize));
        int index = 1;
        for (int y = 0; y < fit.Canvas.Height; y += TileSize)
        {
            for (int x = 0; x < fit.Canvas.Width; x += TileSize)
            {
                canvas.Cut(x, y, tile);
                ResizeAndCrop(tile.Pixels, tile.Size, levels.Slice(values * index++, values));
            }
        }
    }

    /// <summary>CLIP's resize and centre crop.</summary>
    private void ResizeAndCrop(ReadOnlySpan<byte> pixels, ImageSize from, Span<byte> tile)
    {
        var size = SizeAfterResize(from);
        var (window, start) = Crop(size, tile);
        PilResize.ResizeWindow(pixels, from, size, window, tile[start..], 3 * TileSize, _config.Resample, Order);
    }

    private ImageSize SizeAfterResize(ImageSize from)
        => !_config.DoResize ? from : _config.FixedSize ?? AnyResolutionGrid.ShortestEdge(from, _config.ShortestEdge!.Value);

    /// <summary>What a centre crop keeps of a picture, and where in the tile it begins; what it does not cover is made black.</summary>
    private (ImageWindow Window, int Start) Crop(ImageSize size, Span<byte> tile)
    {
        var (fromX, toX, width) = Centre(size.Width);
        var (fromY, toY, height) = Centre(size.Height);
        if (width < TileSize || height < TileSize) tile.Clear();
        return (new ImageWindow(fromX, fromY, width, height), 3 * (TileSize * toY + toX));
    }

    /// <summary>One axis of the centre crop: it starts at floor((length - crop) / 2), which is a negative number's floor too.</summary>
    private (int From, int To, int Length) Centre(int length)
        => length >= TileSize ? ((length - TileSize) / 2, 0, TileSize) : (0, (TileSize - length + 1) / 2, length);
}
