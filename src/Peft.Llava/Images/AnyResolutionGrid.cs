namespace Peft.Llava;

/// <summary>
/// The integer rules of LLaVA's image side: which canvas a picture gets, where it lies on it, how many tiles that makes.
/// All follow <c>llava/mm_utils.py</c> in its very arithmetic (float64, truncation), since an off-by-one here moves every feature row.
/// </summary>
public static class AnyResolutionGrid
{
    /// <summary>
    /// The canvas that keeps most of a picture: the largest effective resolution; of equals the one that wastes least, then the earlier one
    /// (<c>select_best_resolution</c>).
    /// </summary>
    /// <param name="size">The picture's own size.</param>
    /// <param name="pinpoints">The canvases allowed; not empty.</param>
    /// <returns>One of <paramref name="pinpoints"/>.</returns>
    /// <exception cref="GridPinpointsException">There is no pinpoint.</exception>
    public static ImageSize SelectBestResolution(ImageSize size, IReadOnlyList<ImageSize> pinpoints)
    {
        ArgumentNullException.ThrowIfNull(pinpoints);
        if (pinpoints.Count == 0) throw new GridPinpointsException("[]", "it names no resolution");
        var best = pinpoints[0];
        long mostEffective = -1, leastWasted = long.MaxValue;
        foreach (var candidate in pinpoints)
        {
            double scale = Math.Min((double)candidate.Width / size.Width, (double)candidate.Height / size.Height);
            long scaled = (long)(size.Width * scale) * (long)(size.Height * scale);
            long effective = Math.Min(scaled, size.Area);
            long wasted = candidate.Area - effective;
            if (effective > mostEffective || (effective == mostEffective && wasted < leastWasted))
                (best, mostEffective, leastWasted) = (candidate, effective, wasted);
        }
        return best;
    }

    /// <summary>Columns and rows of tiles of the canvas that a picture gets (<c>get_anyres_image_grid_shape</c>).</summary>
    /// <param name="size">The picture's own size.</param>
    /// <param name="pinpoints">The canvases allowed; not empty.</param>
    /// <param name="tileSize">The side of a tile: the vision tower's input size.</param>
    /// <returns>Whole tiles only; a remainder of the canvas is not counted.</returns>
    /// <exception cref="GridPinpointsException">There is no pinpoint.</exception>
    public static (int Columns, int Rows) GridShape(ImageSize size, IReadOnlyList<ImageSize> pinpoints, int tileSize)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(tileSize);
        var best = SelectBestResolution(size, pinpoints);
        return (best.Width / tileSize, best.Height / tileSize);
    }

    /// <summary>
    /// How many tiles the canvas is cut into (<c>divide_to_patches</c>): a remainder makes one more column or row, filled with black.
    /// </summary>
    /// <param name="canvas">The canvas.</param>
    /// <param name="tileSize">The side of a tile.</param>
    public static (int Columns, int Rows) TileCounts(ImageSize canvas, int tileSize)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(tileSize);
        return ((canvas.Width + tileSize - 1) / tileSize, (canvas.Height + tileSize - 1) / tileSize);
    }

    /// <summary>
    /// How a picture is fitted into a canvas: one side exact, the other rounded up, centred (<c>resize_and_pad_image</c>).
    /// </summary>
    /// <param name="size">The picture's own size.</param>
    /// <param name="canvas">The canvas.</param>
    public static ImagePlacement ResizeAndPad(ImageSize size, ImageSize canvas)
    {
        double scaleWidth = (double)canvas.Width / size.Width, scaleHeight = (double)canvas.Height / size.Height;
        var fitted = scaleWidth < scaleHeight
            ? new ImageSize(canvas.Width, (int)Math.Min(Math.Ceiling(size.Height * scaleWidth), canvas.Height))
            : new ImageSize((int)Math.Min(Math.Ceiling(size.Width * scaleHeight), canvas.Width), canvas.Height);
        return new ImagePlacement(canvas, (canvas.Width - fitted.Width) / 2, (canvas.Height - fitted.Height) / 2, fitted);
    }

    /// <summary>Where a picture lies on the smallest square that holds it (<c>expand2square</c>).</summary>
    /// <param name="size">The picture's own size.</param>
    public static ImagePlacement ExpandToSquare(ImageSize size)
    {
        int side = Math.Max(size.Width, size.Height);
        return new ImagePlacement(new ImageSize(side, side), (side - size.Width) / 2, (side - size.Height) / 2, size);
    }

    /// <summary>
    /// The size after a resize to a shortest edge: the short side exact, the long side truncated (transformers'
    /// <c>get_resize_output_image_size</c>).
    /// </summary>
    /// <param name="size">The picture's own size.</param>
    /// <param name="edge">The short side wanted.</param>
    /// <exception cref="ImageShapeException">The long side would be above 2^31.</exception>
    public static ImageSize ShortestEdge(ImageSize size, int edge)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(edge);
        long longSide = (long)((double)((long)edge * Math.Max(size.Width, size.Height)) / Math.Min(size.Width, size.Height));
        if (longSide > int.MaxValue) throw new ImageShapeException(longSide, edge);
        return size.Width <= size.Height ? new ImageSize(edge, (int)longSide) : new ImageSize((int)longSide, edge);
    }
}
