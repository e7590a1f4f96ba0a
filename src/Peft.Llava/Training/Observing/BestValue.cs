namespace Peft.Llava;

/// <summary>Remembers the lowest of the values it is told, and how long ago that was. Values that are no numbers never are the best.</summary>
/// <param name="minimumImprovement">By how much a value must be lower to count as better.</param>
public sealed class BestValue(double minimumImprovement = 0)
{
    /// <summary>The lowest value; positive infinity before the first.</summary>
    public double Value { get; private set; } = double.PositiveInfinity;

    /// <summary>The step of the lowest value; 0 before the first.</summary>
    public int Step { get; private set; }

    /// <summary>Values since the best one.</summary>
    public int Since { get; private set; }

    /// <summary>Takes a value.</summary>
    /// <param name="step">Its step.</param>
    /// <param name="value">The value: a loss, or the negative of what should be high.</param>
    /// <returns>Whether it is the best so far.</returns>
    public bool Add(int step, double value)
    {
        if (!IsBetter(value))
        {
            Since++;
            return false;
        }
        (Value, Step, Since) = (value, step, 0);
        return true;
    }

    /// <summary>Whether a value would be the best so far.</summary>
    /// <param name="value">The value.</param>
    public bool IsBetter(double value) => double.IsFinite(value) && (double.IsPositiveInfinity(Value) || value < Value - minimumImprovement);
}
