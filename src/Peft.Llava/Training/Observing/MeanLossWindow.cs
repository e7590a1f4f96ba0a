namespace Peft.Llava;

/// <summary>The mean loss of each <paramref name="length"/> steps: single steps are too noisy to judge a run by.</summary>
internal sealed class MeanLossWindow(int length)
{
    private double _sum;
    private int _count;

    /// <summary>The window's mean if this step completes it; not a number if one of its losses is not.</summary>
    public double? Add(double loss)
    {
        if (double.IsFinite(loss)) _sum += loss;
        else _sum = double.NaN;
        if (++_count < length) return null;
        double mean = _sum / length;
        (_sum, _count) = (0, 0);
        return mean;
    }
}
