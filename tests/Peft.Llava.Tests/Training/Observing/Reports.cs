namespace Peft.Llava.Tests.Training.Observing;

/// <summary>Reports of steps that nobody trained.</summary>
internal static class Reports
{
    public static TrainingStart Start { get; } = new(3, 7, 14, 1, [new ParameterGroup("adapter", [], 2e-4, 0), new ParameterGroup("projector", [], 2e-5, 0)]);

    public static TrainingSummary Summary { get; } = new(3, 0.42857142857142855, 1.5, 900, 6.25, false);

    public static EvaluationReport Evaluation { get; } = new(2, 0.2857142857142857, 1.375, 2.25, new Dictionary<string, double> { ["exact"] = 0.5 }, 0.5, true, 3.5);

    public static StepReport Step(int step, double loss, double wait = 0.125) => new()
    {
        Step = step,
        TotalSteps = 3,
        Epoch = step / 7.0,
        Loss = loss,
        MicroLosses = [loss],
        SampleIds = [[$"sample-{step}"]],
        GradNorm = 1.75 * step,
        Clipped = step > 1,
        Rates = [2e-4 / step, 2e-5 / step],
        NextRates = [1e-4, 1e-5],
        Tokens = 300 + step,
        SupervisedTokens = 40 + step,
        Seconds = 2,
        DataWaitSeconds = wait,
    };
}
