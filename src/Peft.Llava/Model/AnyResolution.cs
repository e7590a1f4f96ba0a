namespace Peft.Llava;

/// <summary>Which rounding the reference applies when it cuts the padding of an any-resolution map off.</summary>
public enum UnpadRounding
{
    /// <summary>LLaVA truncates the floating-point size as it is.</summary>
    Truncate,

    /// <summary>transformers rounds to seven decimals first, then truncates; the two differ for rare sizes.</summary>
    RoundThenTruncate,
}

/// <summary>The part of a patch map that shows the image; <c>RowEnd</c> and <c>ColumnEnd</c> are exclusive.</summary>
/// <param name="RowStart">First row.</param>
/// <param name="RowEnd">After the last row.</param>
/// <param name="ColumnStart">First column.</param>
/// <param name="ColumnEnd">After the last column.</param>
public readonly record struct PatchWindow(int RowStart, int RowEnd, int ColumnStart, int ColumnEnd)
{
    /// <summary>Rows; 0 where an extreme shape leaves none.</summary>
    public int Rows => Math.Max(0, RowEnd - RowStart);

    /// <summary>Columns; 0 where an extreme shape leaves none.</summary>
    public int Columns => Math.Max(0, ColumnEnd - ColumnStart);
}

/// <summary>The order in which the features of one image's tiles follow each other.</summary>
public static class AnyResolution
{
    /// <summary>Stands for the <c>image_newline</c> row.</summary>
    public const int Newline = -1;

    /// <summary>The part of the stitched map that is no padding: both sides lose the same amount, so an odd rest keeps one padded row.</summary>
    /// <param name="size">The original image.</param>
    /// <param name="columns">Patch columns of the map.</param>
    /// <param name="rows">Patch rows of the map.</param>
    /// <param name="rounding">Whose rounding.</param>
    /// <returns>The window; empty for extreme shapes.</returns>
    public static PatchWindow Unpad(ImageSize size, int columns, int rows, UnpadRounding rounding)
    {
        bool wide = (double)size.Width / size.Height > (double)columns / rows;
        double kept = wide ? size.Height * ((double)columns / size.Width) : size.Width * ((double)rows / size.Height);
        int whole = (int)(rounding == UnpadRounding.RoundThenTruncate ? Math.Round(kept, 7) : kept);
        int padding = (int)Math.Floor(((wide ? rows : columns) - whole) / 2.0);
        return wide
            ? new PatchWindow(padding, rows - padding, 0, columns)
            : new PatchWindow(0, rows, padding, columns - padding);
    }

    /// <summary>Feature rows of one image, counted through its tiles (tile * features + feature), in the order they enter the sequence.</summary>
    /// <param name="config">The model's configuration, with the tower's sizes.</param>
    /// <param name="size">The original image.</param>
    /// <param name="tileCount">Tiles the image has.</param>
    /// <param name="merge">Whether <c>mm_patch_merge_type</c> applies; otherwise tile after tile.</param>
    /// <returns>Row numbers; <see cref="Newline"/> for <c>image_newline</c>.</returns>
    /// <exception cref="ArgumentException">Tiles, size and configuration do not fit together; the message says how.</exception>
    public static IReadOnlyList<int> FeatureRows(LlavaConfig config, ImageSize size, int tileCount, bool merge)
    {
        ArgumentNullException.ThrowIfNull(config);
        int perTile = config.FeaturesPerTile;
        var rows = new List<int>(tileCount * perTile);
        bool spatial = merge && config.PatchMerge != PatchMergeType.Flat;
        bool unpad = spatial && config.PatchMerge == PatchMergeType.SpatialUnpad;
        if (!spatial || tileCount == 1)
        {
            for (int row = 0; row < tileCount * perTile; row++) rows.Add(row);
            if (unpad) rows.Add(Newline);
            return rows;
        }
        var vision = config.Vision!;
        int side = vision.PatchesPerSide;
        if (config.KeepClassToken)
            throw new ArgumentException("the class token is kept (cls_patch), but an image of several tiles is stitched from patches alone; "
                + "use mm_vision_select_feature patch or mm_patch_merge_type flat.");
        if (config.ImageAspectRatio != "anyres")
            throw new ArgumentException($"it has {tileCount} tiles, but image_aspect_ratio is '{config.ImageAspectRatio}'; "
                + "tiles are stitched only for anyres.");
        var (gridColumns, gridRows) = AnyResolutionGrid.GridShape(size, config.GridPinpoints, vision.ImageSize);
        if (gridColumns * gridRows != tileCount - 1)
            throw new ArgumentException($"an image of {size} gets {gridColumns} x {gridRows} tiles and the base image, "
                + $"but {tileCount} tiles were given; image_grid_pinpoints of the processor and of the model must be the same.");
        for (int row = 0; row < perTile; row++) rows.Add(row);
        int mapColumns = gridColumns * side, mapRows = gridRows * side;
        var rounding = config.Layout == CheckpointLayout.HuggingFaceNext ? UnpadRounding.RoundThenTruncate : UnpadRounding.Truncate;
        var window = unpad ? Unpad(size, mapColumns, mapRows, rounding) : new PatchWindow(0, mapRows, 0, mapColumns);
        for (int y = window.RowStart; y < window.RowEnd; y++)
        {
            for (int x = window.ColumnStart; x < window.ColumnEnd; x++)
            {
                int tile = 1 + y / side * gridColumns + x / side;
                rows.Add(tile * perTile + y % side * side + x % side);
            }
            if (unpad) rows.Add(Newline);
        }
        return rows;
    }
}
