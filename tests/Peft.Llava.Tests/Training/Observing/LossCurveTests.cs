using Peft.Core;
using SkiaSharp;
using Xunit;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class LossCurveTests : IDisposable
{
    private static readonly SKColor Blue = new(0x1f, 0x5f, 0xbf), Orange = new(0xd2, 0x5a, 0x1e), Ink = new(0x22, 0x26, 0x2b), Grey = new(0x6b, 0x72, 0x7c);

    private readonly string _folder = Directory.CreateTempSubdirectory("curve").FullName;

    private string File1 => Path.Combine(_folder, "plots", "loss.png");

    // The plot lies within x 96 to 1164 and y 84 to 616.
    private static float X(double step, double first, double last) => 96 + (float)((step - first) / (last - first)) * 1068;

    private static float Y(double loss, double top) => 616 - (float)(loss / top) * 532;

    private static int Count(SKBitmap picture, SKColor colour, SKRectI within)
    {
        int count = 0;
        for (int y = within.Top; y < within.Bottom; y++)
            for (int x = within.Left; x < within.Right; x++)
                if (picture.GetPixel(x, y) == colour) count++;
        return count;
    }

    private SKBitmap Draw(params LossSeries[] series)
    {
        LossCurve.Write(File1, "A run", series);
        return SKBitmap.Decode(File1);
    }

    [Fact]
    public void Axes_lines_and_evaluations_are_where_the_numbers_say()
    {
        // Falls from 4 to 2 along a straight line, which smoothing leaves in place.
        double[] losses = [.. Enumerable.Range(0, 101).Select(i => 4 - 0.02 * i)];
        using var picture = Draw(new LossSeries("loss", losses) { Evaluations = [(26, 1.0), (76, 3.0)] });
        Assert.Equal((LossCurve.Width, LossCurve.Height), (picture.Width, picture.Height));
        Assert.Equal(SKColors.White, picture.GetPixel(2, 2));
        // Axes: grey all along.
        Assert.True(Count(picture, Grey, new SKRectI(95, 84, 98, 616)) > 500);
        Assert.True(Count(picture, Grey, new SKRectI(96, 615, 1164, 618)) > 1000);
        // The axis ends at 5: ticks of 1 above a highest value of 4 and 4 %.
        foreach (int step in new[] { 21, 51, 91 }) Assert.Equal(Blue, picture.GetPixel((int)X(step, 1, 101), (int)Y(4 - 0.02 * (step - 1), 5)));
        // A ring of ink around the colour at each evaluation, and a broken line of ink between them.
        foreach (var (step, loss) in new[] { (26, 1.0), (76, 3.0) })
        {
            var (x, y) = ((int)X(step, 1, 101), (int)Y(loss, 5));
            Assert.Equal(Blue, picture.GetPixel(x, y));
            Assert.Equal(Ink, picture.GetPixel(x, y - 6));
        }
        Assert.True(Count(picture, Ink, new SKRectI(400, 300, 850, 500)) > 50);
        // Labels at the axis and a title, whatever fonts there are.
        Assert.True(Count(picture, Ink, new SKRectI(96, 20, 400, 56)) > 50);
        Assert.True(Count(picture, Grey, new SKRectI(40, 90, 90, 610)) > 50);
    }

    [Fact]
    public void The_smoothed_line_goes_through_the_middle_of_a_noisy_one()
    {
        double[] losses = [.. Enumerable.Range(0, 400).Select(i => i % 2 == 0 ? 1.0 : 3.0)];
        using var picture = Draw(new LossSeries("loss", losses));
        int middle = (int)Y(2, 4);
        Assert.True(Count(picture, Blue, new SKRectI(150, middle - 2, 1100, middle + 3)) > 900, "a bold line in the middle");
        // The raw line is thin and pale: no full colour away from the middle.
        Assert.Equal(0, Count(picture, Blue, new SKRectI(150, middle + 20, 1100, 610)));
        Assert.NotEqual(SKColors.White, picture.GetPixel(700, middle + 40));
    }

    [Fact]
    public void A_gap_stays_a_gap_and_two_runs_have_two_colours()
    {
        double[] gap = [.. Enumerable.Range(1, 100).Select(i => i is > 30 and < 70 ? double.NaN : 2.0)];
        using var picture = Draw(new LossSeries("a", gap), new LossSeries("b", [.. Enumerable.Repeat(1.0, 100)]));
        int high = (int)Y(2, 2.5), low = (int)Y(1, 2.5);
        Assert.True(Count(picture, Blue, new SKRectI(110, high - 2, 350, high + 3)) > 200);
        Assert.Equal(0, Count(picture, Blue, new SKRectI((int)X(42, 1, 100), high - 3, (int)X(58, 1, 100), high + 4)));
        Assert.True(Count(picture, Orange, new SKRectI(110, low - 2, 1100, low + 3)) > 900);
    }

    [Theory]
    [InlineData(new double[0])]
    [InlineData(new[] { double.NaN })]
    [InlineData(new[] { 1.5 })]
    [InlineData(new[] { 0.0, 0.0, 0.0 })]
    [InlineData(new[] { 2.0, double.PositiveInfinity, -1 })]
    public void Any_losses_give_a_picture(double[] losses)
    {
        using var picture = Draw(new LossSeries("loss", losses, FirstStep: 7));
        Assert.Equal(LossCurve.Width, picture.Width);
    }

    [Fact]
    public void The_observer_draws_at_the_end_and_in_between()
    {
        var observer = new LossCurveObserver(File1, every: 2);
        observer.OnStep(Reports.Step(5, 2));
        Assert.False(File.Exists(File1));
        observer.OnStep(Reports.Step(6, double.NaN) with { Evaluation = Reports.Evaluation });
        byte[] between = File.ReadAllBytes(File1);
        observer.OnStep(Reports.Step(7, 1));
        observer.OnEnd(Reports.Summary);
        Assert.NotEqual(between, File.ReadAllBytes(File1));
        Assert.Equal(5, observer.Series.FirstStep);
        Assert.Equal([2, double.NaN, 1], observer.Series.Losses);
        Assert.Equal([(6, 1.375)], observer.Series.Evaluations);
        Assert.Equal(["loss.png"], Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(File1)!).Select(Path.GetFileName));
    }

    [Fact]
    public void A_place_that_cannot_be_written_is_named()
    {
        string blocker = Path.Combine(_folder, "blocker");
        File.WriteAllText(blocker, "");
        var e = Assert.Throws<FileWriteException>(() => new LossCurveObserver(Path.Combine(blocker, "loss.png")).OnEnd(Reports.Summary));
        Assert.Contains(blocker, e.Message, StringComparison.Ordinal);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
