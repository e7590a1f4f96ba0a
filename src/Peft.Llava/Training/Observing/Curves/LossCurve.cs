using System.Globalization;
using Peft.Core;
using SkiaSharp;

namespace Peft.Llava;

/// <summary>One run's losses, a value per step.</summary>
/// <param name="Name">What the legend calls it.</param>
/// <param name="Losses">The loss of step <paramref name="FirstStep"/>, of the next one, and so on; what is no number is left out.</param>
/// <param name="FirstStep">The number of the first step.</param>
public sealed record LossSeries(string Name, IReadOnlyList<double> Losses, int FirstStep = 1)
{
    /// <summary>Evaluations: step and loss, in the order of steps.</summary>
    public IReadOnlyList<(int Step, double Loss)> Evaluations { get; init; } = [];
}

/// <summary>Draws losses over steps: thin as measured, bold smoothed, evaluations as ringed points on a broken line.</summary>
/// <remarks>Needs no font: without one, letters come from a small raster.</remarks>
public static class LossCurve
{
    /// <summary>The picture's size in pixels.</summary>
    public const int Width = 1200, Height = 700;

    private const float Left = 96, Right = 36, Top = 84, Bottom = 84;

    private static readonly SKColor[] Colours = [new(0x1f, 0x5f, 0xbf), new(0xd2, 0x5a, 0x1e), new(0x2b, 0x8a, 0x3e), new(0x8e, 0x44, 0xad)];
    private static readonly SKColor Ink = new(0x22, 0x26, 0x2b), Grey = new(0x6b, 0x72, 0x7c), Grid = new(0xe4, 0xe7, 0xeb);

    /// <summary>Writes a PNG.</summary>
    /// <param name="path">The file; its folder is made if need be.</param>
    /// <param name="title">The line above.</param>
    /// <param name="series">One or more runs.</param>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void Write(string path, string title, params IReadOnlyList<LossSeries> series)
    {
        ArgumentNullException.ThrowIfNull(series);
        using var surface = SKSurface.Create(new SKImageInfo(Width, Height));
        Draw(surface.Canvas, title, series);
        using var image = surface.Snapshot();
        using var png = image.Encode(SKEncodedImageFormat.Png, 100);
        OutputFolder.Create(Path.GetDirectoryName(Path.GetFullPath(path))!);
        AtomicFile.WriteStream(path, stream => png.SaveTo(stream));
    }

    private static void Draw(SKCanvas canvas, string title, IReadOnlyList<LossSeries> series)
    {
        using var text = new Lettering();
        using var bold = new Lettering(bold: true);
        canvas.Clear(SKColors.White);
        bold.Draw(canvas, title, Left, 46, 26, Ink);
        var values = series.SelectMany(s => s.Losses.Concat(s.Evaluations.Select(e => e.Loss))).Where(double.IsFinite).ToList();
        if (values.Count == 0)
        {
            text.Draw(canvas, "no loss yet", Width / 2f, Height / 2f, 22, Grey, 0.5f);
            return;
        }
        int firstStep = series.Min(s => s.FirstStep), lastStep = Math.Max(firstStep + 1, series.Max(s => s.FirstStep + s.Losses.Count - 1));
        // A few wild steps must not flatten the curve: then the axis ends above what 98 % of the steps stay below.
        double usual = values.Order().ElementAt((int)((values.Count - 1) * 0.98));
        double low = Math.Min(0, values.Min()), high = Math.Max(Math.Min(values.Max(), 3 * usual) * 1.04, low + 1e-6);
        double lossTick = NiceStep((high - low) / 6), stepTick = Math.Max(1, NiceStep((lastStep - firstStep) / 8.0));
        high = Math.Ceiling(high / lossTick) * lossTick;
        float X(double step) => Left + (float)((step - firstStep) / (lastStep - firstStep)) * (Width - Left - Right);
        float Y(double loss) => Height - Bottom - (float)((loss - low) / (high - low)) * (Height - Top - Bottom);

        using var grid = new SKPaint { Color = Grid, StrokeWidth = 1 };
        using var axis = new SKPaint { Color = Grey, StrokeWidth = 1.5f };
        for (double loss = Math.Ceiling(low / lossTick) * lossTick; loss <= high + lossTick / 2; loss += lossTick)
        {
            canvas.DrawLine(Left, Y(loss), Width - Right, Y(loss), grid);
            text.Draw(canvas, Label(loss, lossTick), Left - 12, Y(loss) + 6, 17, Grey, 1);
        }
        for (double step = Math.Ceiling(firstStep / stepTick) * stepTick; step <= lastStep; step += stepTick)
        {
            canvas.DrawLine(X(step), Height - Bottom, X(step), Height - Bottom + 6, axis);
            text.Draw(canvas, Label(step, stepTick), X(step), Height - Bottom + 27, 17, Grey, 0.5f);
        }
        canvas.DrawLine(Left, Height - Bottom, Width - Right, Height - Bottom, axis);
        canvas.DrawLine(Left, Top, Left, Height - Bottom, axis);
        text.Draw(canvas, "step", (Left + Width - Right) / 2, Height - 22, 18, Ink, 0.5f);
        canvas.Save();
        canvas.RotateDegrees(-90, 30, (Top + Height - Bottom) / 2);
        text.Draw(canvas, "loss", 30, (Top + Height - Bottom) / 2, 18, Ink, 0.5f);
        canvas.Restore();

        var smooth = series.Select(s => Smooth(s.Losses)).ToList();
        canvas.Save();
        canvas.ClipRect(new SKRect(Left, Top - 4, Width - Right + 8, Height - Bottom));
        for (int i = 0; i < series.Count; i++) Plot(canvas, series[i], smooth[i], Colours[i % Colours.Length], X, Y);
        canvas.Restore();
        Legend(canvas, text, series, smooth);
    }

    private static void Plot(SKCanvas canvas, LossSeries series, double[] smooth, SKColor colour, Func<double, float> x, Func<double, float> y)
    {
        using var thin = new SKPaint { Color = colour.WithAlpha(70), StrokeWidth = 1.3f, IsAntialias = true, Style = SKPaintStyle.Stroke };
        using var strong = new SKPaint { Color = colour, StrokeWidth = 3, IsAntialias = true, Style = SKPaintStyle.Stroke, StrokeJoin = SKStrokeJoin.Round };
        Line(canvas, series.Losses, series.FirstStep, thin, x, y);
        Line(canvas, smooth, series.FirstStep, strong, x, y);
        Points(canvas, series, colour, x, y);
        if (series.Losses is not [var only] || !double.IsFinite(only)) return;
        using var dot = new SKPaint { Color = colour, IsAntialias = true };
        canvas.DrawCircle(x(series.FirstStep), y(only), 5, dot);
    }

    private static void Points(SKCanvas canvas, LossSeries series, SKColor colour, Func<double, float> x, Func<double, float> y)
    {
        using var broken = SKPathEffect.CreateDash([7, 5], 0);
        using var line = new SKPaint { Color = Ink, StrokeWidth = 1.5f, IsAntialias = true, Style = SKPaintStyle.Stroke, PathEffect = broken };
        using var ring = new SKPaint { Color = Ink, IsAntialias = true };
        using var inner = new SKPaint { Color = colour, IsAntialias = true };
        var points = series.Evaluations.Where(e => double.IsFinite(e.Loss)).Select(e => new SKPoint(x(e.Step), y(e.Loss))).ToList();
        for (int i = 1; i < points.Count; i++) canvas.DrawLine(points[i - 1], points[i], line);
        foreach (var point in points)
        {
            canvas.DrawCircle(point, 7, ring);
            canvas.DrawCircle(point, 5, inner);
        }
    }

    private static void Line(SKCanvas canvas, IReadOnlyList<double> losses, int firstStep, SKPaint paint, Func<double, float> x, Func<double, float> y)
    {
        using var path = new SKPath();
        bool open = false;
        for (int i = 0; i < losses.Count; i++)
        {
            if (!double.IsFinite(losses[i]))
            {
                open = false;
                continue;
            }
            if (open) path.LineTo(x(firstStep + i), y(losses[i]));
            else path.MoveTo(x(firstStep + i), y(losses[i]));
            open = true;
        }
        canvas.DrawPath(path, paint);
    }

    /// <summary>A mean weighed by distance (a bell as wide as a fiftieth of the run), so that the curve does not lag behind.</summary>
    private static double[] Smooth(IReadOnlyList<double> losses)
    {
        double width = Math.Max(0.7, losses.Count / 50.0);
        int reach = (int)Math.Ceiling(3 * width);
        double[] smooth = new double[losses.Count];
        for (int i = 0; i < smooth.Length; i++)
        {
            double sum = 0, weight = 0;
            for (int j = Math.Max(0, i - reach); j <= Math.Min(losses.Count - 1, i + reach); j++)
            {
                if (!double.IsFinite(losses[j])) continue;
                double w = Math.Exp(-0.5 * (j - i) * (j - i) / (width * width));
                sum += w * losses[j];
                weight += w;
            }
            smooth[i] = weight > 0 ? sum / weight : double.NaN;
        }
        return smooth;
    }

    private static void Legend(SKCanvas canvas, Lettering text, IReadOnlyList<LossSeries> series, IReadOnlyList<double[]> smooth)
    {
        float x = Width - Right;
        for (int i = series.Count - 1; i >= 0; i--)
        {
            double last = smooth[i].LastOrDefault(double.NaN);
            string label = $"{series[i].Name}: {last.ToString("0.0000", CultureInfo.InvariantCulture)} after step {series[i].FirstStep + series[i].Losses.Count - 1}"
                + (series[i].Evaluations is [.., var e] ? $", evaluated {e.Loss.ToString("0.0000", CultureInfo.InvariantCulture)}" : "");
            float width = text.Measure(label, 17);
            using var line = new SKPaint { Color = Colours[i % Colours.Length], StrokeWidth = 4 };
            text.Draw(canvas, label, x - width, 72, 17, Ink);
            canvas.DrawLine(x - width - 34, 66, x - width - 8, 66, line);
            x -= width + 62;
        }
    }

    /// <summary>1, 2 or 5 times a power of ten, not below a value.</summary>
    private static double NiceStep(double least)
    {
        double power = Math.Pow(10, Math.Floor(Math.Log10(Math.Max(least, 1e-12))));
        foreach (double factor in (double[])[1, 2, 5]) if (factor * power >= least * 0.999) return factor * power;
        return 10 * power;
    }

    private static string Label(double value, double step)
    {
        int digits = Math.Max(0, (int)-Math.Floor(Math.Log10(step)));
        return Math.Round(value, digits).ToString("F" + digits, CultureInfo.InvariantCulture);
    }
}
