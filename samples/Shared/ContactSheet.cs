using Peft.Llava;
using SkiaSharp;

namespace Peft.Samples;

/// <summary>An answer on a contact sheet.</summary>
/// <param name="Label">What stands before it, for example <c>before</c>.</param>
/// <param name="Text">The answer.</param>
/// <param name="IsRight">True is drawn green, false red, null without judgement.</param>
public sealed record ContactAnswer(string Label, string Text, bool? IsRight);

/// <summary>A picture with its question and answers.</summary>
/// <param name="Picture">The picture, of any size.</param>
/// <param name="Question">What was asked.</param>
/// <param name="Answers">The answers, in the order they are drawn.</param>
public sealed record ContactItem(RgbImage Picture, string Question, IReadOnlyList<ContactAnswer> Answers);

/// <summary>Draws pictures in a grid, each with its question and the answers to it.</summary>
public static class ContactSheet
{
    private const int Cell = 264, Gap = 20, Edge = 28, PictureSide = 176, Head = 86, LineHeight = 20;
    private const int QuestionLines = 2, AnswerLines = 4, AnswerGap = 6, Margin = 14, TextSize = 14;

    private static readonly SKColor Ink = new(0x22, 0x26, 0x2b), Grey = new(0x6b, 0x72, 0x7c), Frame = new(0xdd, 0xe1, 0xe6), Paper = new(0xf6, 0xf7, 0xf9);
    private static readonly SKColor Right = new(0x1e, 0x7d, 0x37), Wrong = new(0xb3, 0x26, 0x1e);

    /// <summary>Writes a PNG.</summary>
    /// <param name="path">The file; its folder is made if need be.</param>
    /// <param name="title">The line above.</param>
    /// <param name="subtitle">A smaller line below it, or empty.</param>
    /// <param name="items">The pictures.</param>
    /// <param name="columns">Pictures per row.</param>
    public static void Write(string path, string title, string subtitle, IReadOnlyList<ContactItem> items, int columns = 5)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(columns);
        columns = Math.Max(1, Math.Min(columns, items.Count));
        using var text = new Lettering();
        using var bold = new Lettering(bold: true);
        var captions = items.Select(i => Caption.Make(i, text, bold)).ToList();
        int rows = (items.Count + columns - 1) / columns;
        int cellHeight = PictureSide + 36 + captions.Select(c => c.Height).DefaultIfEmpty(0).Max();
        int width = Math.Max(2 * Edge + columns * Cell + (columns - 1) * Gap, 640);
        int height = Head + Edge + rows * cellHeight + Math.Max(0, rows - 1) * Gap;
        using var surface = SKSurface.Create(new SKImageInfo(width, height));
        var canvas = surface.Canvas;
        canvas.Clear(Paper);
        bold.Draw(canvas, title, Edge, 44, 25, Ink);
        text.Draw(canvas, subtitle, Edge, 70, 16, Grey);
        for (int i = 0; i < items.Count; i++)
            DrawCell(canvas, text, bold, items[i], captions[i], Edge + i % columns * (Cell + Gap), Head + i / columns * (cellHeight + Gap), cellHeight);
        using var image = surface.Snapshot();
        using var png = image.Encode(SKEncodedImageFormat.Png, 100);
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
        File.WriteAllBytes(path, png.ToArray());
    }

    private static void DrawCell(SKCanvas canvas, Lettering text, Lettering bold, ContactItem item, Caption caption, float x, float y, float height)
    {
        using var fill = new SKPaint { Color = SKColors.White, IsAntialias = true };
        using var line = new SKPaint { Color = Frame, Style = SKPaintStyle.Stroke, StrokeWidth = 1, IsAntialias = true };
        canvas.DrawRoundRect(x, y, Cell, height, 8, 8, fill);
        canvas.DrawRoundRect(x, y, Cell, height, 8, 8, line);
        DrawPicture(canvas, item.Picture, x + (Cell - PictureSide) / 2f, y + 12);
        float baseline = y + PictureSide + 40;
        foreach (string part in caption.Question)
        {
            text.Draw(canvas, part, x + Margin, baseline, TextSize, Grey);
            baseline += LineHeight;
        }
        for (int i = 0; i < item.Answers.Count; i++)
        {
            baseline += AnswerGap;
            var colour = item.Answers[i].IsRight switch { true => Right, false => Wrong, null => Ink };
            bold.Draw(canvas, item.Answers[i].Label, x + Margin, baseline, TextSize, colour);
            foreach (string part in caption.Answers[i])
            {
                text.Draw(canvas, part, x + Margin + caption.Indent, baseline, TextSize, colour);
                baseline += LineHeight;
            }
        }
    }

    /// <summary>The wrapped lines below a picture.</summary>
    private sealed record Caption(IReadOnlyList<string> Question, IReadOnlyList<IReadOnlyList<string>> Answers, float Indent)
    {
        public int Height => (Question.Count + Answers.Sum(a => a.Count)) * LineHeight + Answers.Count * AnswerGap;

        public static Caption Make(ContactItem item, Lettering text, Lettering bold)
        {
            float width = Cell - 2 * Margin;
            float indent = item.Answers.Select(a => bold.Measure(a.Label, TextSize)).DefaultIfEmpty(0).Max() + 10;
            return new Caption(
                text.Wrap(item.Question, TextSize, width, QuestionLines),
                [.. item.Answers.Select(a => text.Wrap(string.IsNullOrWhiteSpace(a.Text) ? "(nothing)" : a.Text, TextSize, width - indent, AnswerLines))],
                indent);
        }
    }

    /// <summary>The picture, fitted into its square; enlarged or shrunk by the bicubic filter.</summary>
    private static void DrawPicture(SKCanvas canvas, RgbImage picture, float x, float y)
    {
        double scale = Math.Min((double)PictureSide / picture.Width, (double)PictureSide / picture.Height);
        var size = new ImageSize(Math.Max(1, (int)Math.Round(picture.Width * scale)), Math.Max(1, (int)Math.Round(picture.Height * scale)));
        var fitted = PilResize.Resize(picture, size, ResizeFilter.Bicubic);
        using var bitmap = new SKBitmap(new SKImageInfo(size.Width, size.Height, SKColorType.Rgba8888, SKAlphaType.Opaque));
        var pixels = bitmap.GetPixelSpan();
        for (int i = 0; i < size.Width * size.Height; i++)
        {
            fitted.Pixels.AsSpan(3 * i, 3).CopyTo(pixels[(4 * i)..]);
            pixels[4 * i + 3] = 255;
        }
        canvas.DrawBitmap(bitmap, x + (PictureSide - size.Width) / 2f, y + (PictureSide - size.Height) / 2f);
    }
}
