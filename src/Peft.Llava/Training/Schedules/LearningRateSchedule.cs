namespace Peft.Llava;

/// <summary>
/// The factor on each parameter group's own rate, step by step, in double arithmetic: the figures of transformers' <c>get_scheduler</c>.
/// </summary>
/// <remarks>Steps are counted from 0: <c>Factor(0)</c> belongs to the first optimizer step, so with warm-up the first step has rate 0.</remarks>
public sealed class LearningRateSchedule
{
    /// <summary>The timescale of <see cref="ScheduleKind.InverseSquareRoot"/> without warm-up (transformers before 4.38 divides by zero there).</summary>
    public const int InverseSquareRootTimescale = 10_000;

    private readonly double _polynomialEnd;

    /// <summary>Creates a schedule.</summary>
    /// <param name="kind">Its form.</param>
    /// <param name="warmupSteps">Steps over which the factor rises from 0 to 1.</param>
    /// <param name="totalSteps">Steps of the whole training.</param>
    /// <param name="defaultRate">
    /// The optimizer's default rate, which <see cref="ScheduleKind.Polynomial"/> needs: its end rate is 1e-7 for a group of that rate, and in
    /// proportion for the others.
    /// </param>
    /// <param name="cycles">Waves of the cosine forms; null for the form's own default (half a wave, one restart).</param>
    /// <exception cref="TrainingOptionsException">A count is negative, or the polynomial's start is not above its end.</exception>
    public LearningRateSchedule(ScheduleKind kind, int warmupSteps, int totalSteps, double defaultRate = 1, double? cycles = null)
    {
        var problems = new List<string>();
        if (warmupSteps < 0) problems.Add($"warm-up of {warmupSteps} steps is negative");
        if (totalSteps < 0) problems.Add($"a total of {totalSteps} steps is negative");
        if (kind == ScheduleKind.Polynomial && defaultRate <= PolynomialEndRate)
            problems.Add($"the polynomial schedule ends at {PolynomialEndRate:R} and cannot start at {defaultRate:R}: choose a larger learning rate");
        if (problems.Count > 0) throw new TrainingOptionsException(problems);
        Kind = kind;
        WarmupSteps = warmupSteps;
        TotalSteps = totalSteps;
        Cycles = cycles ?? (kind == ScheduleKind.CosineWithRestarts ? 1 : 0.5);
        _polynomialEnd = PolynomialEndRate / defaultRate;
    }

    private const double PolynomialEndRate = 1e-7;

    private static readonly Dictionary<string, ScheduleKind> Names = new(StringComparer.Ordinal)
    {
        ["linear"] = ScheduleKind.Linear,
        ["cosine"] = ScheduleKind.Cosine,
        ["cosine_with_restarts"] = ScheduleKind.CosineWithRestarts,
        ["polynomial"] = ScheduleKind.Polynomial,
        ["constant"] = ScheduleKind.Constant,
        ["constant_with_warmup"] = ScheduleKind.ConstantWithWarmup,
        ["inverse_sqrt"] = ScheduleKind.InverseSquareRoot,
    };

    /// <summary>The form that transformers' <c>lr_scheduler_type</c> names.</summary>
    /// <exception cref="TrainingOptionsException">There is none of this name.</exception>
    public static ScheduleKind ParseKind(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return Names.TryGetValue(name, out var kind)
            ? kind
            : throw new TrainingOptionsException([$"there is no schedule '{name}'; choose one of {string.Join(", ", Names.Keys)}"]);
    }

    /// <summary>The name that transformers' <c>lr_scheduler_type</c> has for a form.</summary>
    public static string NameOf(ScheduleKind kind) => Names.First(n => n.Value == kind).Key;

    /// <summary>The form.</summary>
    public ScheduleKind Kind { get; }

    /// <summary>Steps of warm-up.</summary>
    public int WarmupSteps { get; }

    /// <summary>Steps of the whole training.</summary>
    public int TotalSteps { get; }

    /// <summary>Waves of the cosine forms.</summary>
    public double Cycles { get; }

    /// <summary>
    /// Warm-up steps as transformers counts them: the number asked for if there is one, otherwise the ratio of all steps, rounded up, in
    /// double arithmetic (so a product such as 7 * 0.1 = 0.7000000000000001 is rounded up as it stands).
    /// </summary>
    public static int WarmupFromRatio(int warmupSteps, double warmupRatio, int totalSteps)
        => warmupSteps > 0 ? warmupSteps : (int)Math.Ceiling(totalSteps * warmupRatio);

    /// <summary>The factor for a step, counted from 0; defined past the end as well.</summary>
    public double Factor(int step)
    {
        if (Kind == ScheduleKind.Constant) return 1;
        if (step < WarmupSteps) return (double)step / Math.Max(1, WarmupSteps);
        double progress = (double)(step - WarmupSteps) / Math.Max(1, TotalSteps - WarmupSteps);
        return Kind switch
        {
            ScheduleKind.ConstantWithWarmup => 1,
            ScheduleKind.Linear => Math.Max(0, (double)(TotalSteps - step) / Math.Max(1, TotalSteps - WarmupSteps)),
            ScheduleKind.Cosine => Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * Cycles * 2 * progress))),
            ScheduleKind.CosineWithRestarts => progress >= 1 ? 0 : Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * (Cycles * progress % 1)))),
            ScheduleKind.Polynomial => step > TotalSteps ? _polynomialEnd : (1 - _polynomialEnd) * (1 - progress) + _polynomialEnd,
            _ => InverseSquareRoot(step),
        };
    }

    private double InverseSquareRoot(int step)
    {
        int timescale = WarmupSteps > 0 ? WarmupSteps : InverseSquareRootTimescale;
        return 1 / Math.Sqrt((step + (timescale - WarmupSteps)) / (double)timescale);
    }
}
