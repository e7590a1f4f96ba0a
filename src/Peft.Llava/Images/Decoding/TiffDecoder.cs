using BitMiracle.LibTiff.Classic;

namespace Peft.Llava;

/// <summary>The first page of a TIFF by LibTiff.NET, with Pillow's colour conversions; unlike for other formats Pillow turns it by its orientation tag.</summary>
internal static class TiffDecoder
{
    /// <summary>The library writes to the console unless it is told otherwise, and only for the whole process can it be told.</summary>
    static TiffDecoder() => Tiff.SetErrorHandler(new SilentHandler());

    public static RgbImage Decode(ReadOnlySpan<byte> data, DecodeContext context)
    {
        try
        {
            using var stream = new MemoryStream(data.ToArray(), writable: false);
            using var tiff = Tiff.ClientOpen(context.Source, "r", stream, new TiffStream())
                ?? throw context.Corrupt("Its directory cannot be read");
            var layout = TiffLayout.Read(tiff, context);
            byte[] raster = Raster(tiff, layout, data.Length, context);
            var image = DecodeContext.NewImage(layout.Width, layout.Height);
            TiffColours.ToRgb(raster, layout, image);
            return Turn(image, layout.Orientation);
        }
        catch (Exception error) when (error is not ImageDecodeException)
        {
            // The library has no one exception of its own: damaged tags end in index, cast, overflow or null faults.
            throw context.Corrupt("Its data cannot be decoded", error);
        }
    }

    /// <summary>All samples: [planes][rows][bytes of a row]; one plane if the samples of a pixel lie together.</summary>
    private static byte[] Raster(Tiff tiff, TiffLayout layout, int fileLength, DecodeContext context)
    {
        long row = layout.RowBytes, size = row * layout.Height * layout.Planes;
        if (size > Array.MaxLength) throw context.Fail(ImageFault.TooLarge, $"Its samples take {size} bytes");
        if (layout.Uncompressed && size > fileLength) throw context.Truncated($"Its header claims {layout.Width}x{layout.Height} pixels, more than its {fileLength} bytes can hold");
        byte[] raster = new byte[size];
        if (layout.Tiled) Tiles(tiff, layout, raster, context);
        else Strips(tiff, layout, raster, context);
        return raster;
    }

    private static void Strips(Tiff tiff, TiffLayout layout, byte[] raster, DecodeContext context)
    {
        int perStrip = (int)Math.Clamp(tiff.GetFieldDefaulted(TiffTag.ROWSPERSTRIP)[0].ToUInt(), 1u, (uint)layout.Height);
        int perPlane = (layout.Height + perStrip - 1) / perStrip;
        for (int plane = 0; plane < layout.Planes; plane++)
        {
            for (int strip = 0; strip < perPlane; strip++)
            {
                int first = strip * perStrip;
                int bytes = (int)layout.RowBytes * Math.Min(perStrip, layout.Height - first);
                int at = (int)(layout.RowBytes * (layout.Height * plane + first));
                if (tiff.ReadEncodedStrip(plane * perPlane + strip, raster, at, bytes) < bytes)
                    throw context.Truncated($"Strip {strip} is damaged or cut short");
            }
        }
    }

    private static void Tiles(Tiff tiff, TiffLayout layout, byte[] raster, DecodeContext context)
    {
        int width = tiff.GetField(TiffTag.TILEWIDTH)[0].ToInt(), height = tiff.GetField(TiffTag.TILELENGTH)[0].ToInt();
        int tileRow = (int)((long)width * layout.PlaneBits / 8);
        byte[] tile = new byte[checked(tileRow * height)];
        for (short plane = 0; plane < layout.Planes; plane++)
        {
            for (int y = 0; y < layout.Height; y += height)
            {
                for (int x = 0; x < layout.Width; x += width)
                {
                    if (tiff.ReadTile(tile, 0, x, y, 0, plane) < tile.Length) throw context.Truncated($"The tile at {x}, {y} is damaged or cut short");
                    int left = (int)((long)x * layout.PlaneBits / 8);
                    int bytes = (int)Math.Min(tileRow, layout.RowBytes - left);
                    for (int row = 0; row < Math.Min(height, layout.Height - y); row++)
                        tile.AsSpan(tileRow * row, bytes).CopyTo(raster.AsSpan((int)(layout.RowBytes * (layout.Height * plane + y + row)) + left));
                }
            }
        }
    }

    /// <summary>Turns a picture upright: the eight orientations of the TIFF tag.</summary>
    private static RgbImage Turn(RgbImage image, int orientation)
    {
        if (orientation is < 2 or > 8) return image;
        bool swap = orientation >= 5;
        var turned = swap ? DecodeContext.NewImage(image.Height, image.Width) : DecodeContext.NewImage(image.Width, image.Height);
        for (int y = 0; y < turned.Height; y++)
        {
            var row = turned.Row(y);
            for (int x = 0; x < turned.Width; x++)
            {
                var (fromX, fromY) = swap ? (y, x) : (x, y);
                if (orientation is 2 or 3 or 7 or 8) fromX = image.Width - 1 - fromX;
                if (orientation is 3 or 4 or 6 or 7) fromY = image.Height - 1 - fromY;
                image.Pixels.AsSpan(3 * (image.Width * fromY + fromX), 3).CopyTo(row[(3 * x)..]);
            }
        }
        return turned;
    }

    private sealed class SilentHandler : TiffErrorHandler
    {
        public override void ErrorHandler(Tiff tif, string method, string format, params object[] args)
        {
        }

        public override void ErrorHandlerExt(Tiff tif, object clientData, string method, string format, params object[] args)
        {
        }

        public override void WarningHandler(Tiff tif, string method, string format, params object[] args)
        {
        }

        public override void WarningHandlerExt(Tiff tif, object clientData, string method, string format, params object[] args)
        {
        }
    }
}
