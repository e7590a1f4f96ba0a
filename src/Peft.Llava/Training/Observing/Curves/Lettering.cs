using SkiaSharp;

namespace Peft.Llava;

/// <summary>
/// Text on a Skia canvas, also on a machine without a single font (a bare container with the .NET SDK): there letters are drawn from a
/// small raster.
/// </summary>
internal sealed class Lettering : IDisposable
{
    private const string Sample = "Ag0";

    /// <summary>Glyphs of 5 columns from ' ' to '~'; a column's lowest bit is its top pixel, the eighth lies below the line.</summary>
    private const string Raster =
        "0000000000 00005F0000 0007000700 147F147F14 242A7F2A12 2313086462 3649552250 0005030000 001C224100 0041221C00 082A1C2A08 08083E0808 "
        + "0050300000 0808080808 0060600000 2010080402 3E5149453E 00427F4000 4261514946 2141454B31 1814127F10 2745454539 3C4A494930 0171090503 "
        + "3649494936 064949291E 0036360000 0056360000 0008142241 1414141414 4122140800 0201510906 324979413E 7E1111117E 7F49494936 3E41414122 "
        + "7F4141221C 7F49494941 7F09090101 3E41415132 7F0808087F 00417F4100 2040413F01 7F08142241 7F40404040 7F0204027F 7F0408107F 3E4141413E "
        + "7F09090906 3E4151215E 7F09192946 4649494931 01017F0101 3F4040403F 1F2040201F 7F2018207F 6314081463 0304780403 6151494543 007F414100 "
        + "0204081020 0041417F00 0402010204 4040404040 0001020400 2054545478 7F48444438 3844444420 384444487F 3854545418 087E090102 18A4A4A47C "
        + "7F08040478 00447D4000 4080847D00 7F10284400 00417F4000 7C04180478 7C08040478 3844444438 FC24242418 18242418FC 7C08040408 4854545420 "
        + "043F444020 3C4040207C 1C2040201C 3C4030403C 4428102844 1CA0A0A07C 4464544C44 0008364100 00007F0000 0041360800 0201020402";

    private readonly SKTypeface? _typeface;

    public Lettering(bool bold = false)
    {
        var found = SKFontManager.Default.MatchFamily("DejaVu Sans", bold ? SKFontStyle.Bold : SKFontStyle.Normal)
            ?? SKTypeface.FromFamilyName(null, bold ? SKFontStyle.Bold : SKFontStyle.Normal);
        if (found is not null && found.ContainsGlyphs(Sample)) _typeface = found;
        else found?.Dispose();
        Bold = bold;
    }

    private bool Bold { get; }

    /// <summary>Whether the machine has a font.</summary>
    public bool HasTypeface => _typeface is not null;

    /// <summary>The width of a text at a size (the height of a line is about 1.3 times the size).</summary>
    public float Measure(string text, float size)
    {
        if (_typeface is null) return text.Length * 6 * Dot(size);
        using var font = new SKFont(_typeface, size);
        return font.MeasureText(text);
    }

    /// <summary>Draws a text whose base line begins at a point; <paramref name="anchor"/> 0 is left, 0.5 centred, 1 right.</summary>
    public void Draw(SKCanvas canvas, string text, float x, float y, float size, SKColor colour, float anchor = 0)
    {
        x -= anchor * Measure(text, size);
        using var paint = new SKPaint { Color = colour, IsAntialias = true };
        if (_typeface is not null)
        {
            using var font = new SKFont(_typeface, size) { Subpixel = true, Edging = SKFontEdging.Antialias };
            canvas.DrawText(text, x, y, font, paint);
            return;
        }
        float dot = Dot(size), thick = Bold ? dot * 1.35f : dot;
        for (int i = 0; i < text.Length; i++)
        {
            int glyph = text[i] is >= ' ' and <= '~' ? text[i] - ' ' : '?' - ' ';
            for (int column = 0; column < 5; column++)
            {
                int bits = Convert.ToInt32(Raster.Substring(11 * glyph + 2 * column, 2), 16);
                for (int row = 0; row < 8; row++)
                    if ((bits >> row & 1) != 0) canvas.DrawRect(x + (6 * i + column) * dot, y + (row - 7) * dot, thick, dot, paint);
            }
        }
    }

    /// <summary>Breaks a text at spaces into lines no wider than a width; what does not fit into the lines allowed ends in an ellipsis.</summary>
    public IReadOnlyList<string> Wrap(string text, float size, float width, int maxLines)
    {
        var lines = new List<string>();
        string line = "";
        foreach (string word in text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
        {
            string longer = line.Length == 0 ? word : line + " " + word;
            if (line.Length > 0 && Measure(longer, size) > width)
            {
                lines.Add(line);
                line = word;
            }
            else
            {
                line = longer;
            }
        }
        if (line.Length > 0) lines.Add(line);
        bool cut = lines.Count > maxLines;
        if (cut) lines.RemoveRange(maxLines, lines.Count - maxLines);
        for (int i = 0; i < lines.Count; i++) lines[i] = Fit(lines[i], size, width, cut && i == lines.Count - 1);
        return lines;
    }

    public void Dispose() => _typeface?.Dispose();

    private string Fit(string line, float size, float width, bool more)
    {
        if (!more && Measure(line, size) <= width) return line;
        while (line.Length > 1 && Measure(line + "...", size) > width) line = line[..^1];
        return line.TrimEnd() + "...";
    }

    /// <summary>The side of a raster pixel: capitals are about 0.72 of the size high, as in ordinary fonts.</summary>
    private static float Dot(float size) => Math.Max(1, MathF.Round(size * 0.72f / 7 * 2) / 2);
}
