using SkiaSharp;

namespace Peft.Benchmarks;

/// <summary>Pictures of the data scenarios.</summary>
internal static class BenchmarkPicture
{
    /// <summary>A JPEG of 640 x 480 with enough in it to compress like a photograph.</summary>
    /// <param name="seed">Decides what is on it.</param>
    public static byte[] Jpeg(int seed)
    {
        using var bitmap = new SKBitmap(640, 480);
        using var canvas = new SKCanvas(bitmap);
        var random = new Random(seed);
        canvas.Clear(SKColors.SkyBlue);
        for (int i = 0; i < 200; i++)
        {
            using var paint = new SKPaint { Color = new SKColor((uint)random.Next() | 0xff000000), IsAntialias = true };
            canvas.DrawCircle(random.Next(640), random.Next(480), random.Next(5, 60), paint);
        }
        canvas.Flush();
        using var data = bitmap.Encode(SKEncodedImageFormat.Jpeg, 90);
        return data.ToArray();
    }
}
