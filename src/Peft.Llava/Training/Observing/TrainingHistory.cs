namespace Peft.Llava;

/// <summary>What <c>trainer_state.json</c> tells: the log entries of transformers' Trainer.</summary>
internal sealed class TrainingHistory
{
    private readonly List<LogEntry> _entries = [];
    private double _sinceLog;
    private double _total;
    private int _lastLogged;
    private long _tokens;

    public IReadOnlyList<LogEntry> Entries => _entries;

    public int Steps { get; private set; }

    public double Epoch { get; private set; }

    public TrainingSummary? Summary { get; private set; }

    /// <summary>transformers' estimate of the floating-point operations so far (<c>total_flos</c>): 6 a parameter and text token.</summary>
    public double Operations { get; private set; }

    public void Add(StepReport report, int loggingSteps, double operations = 0)
    {
        Operations += operations;
        // transformers counts a loss that is no number as 0 (logging_nan_inf_filter).
        double loss = double.IsFinite(report.Loss) ? report.Loss : 0;
        _sinceLog += loss;
        _total += loss;
        _tokens += report.Tokens;
        Steps = report.Step;
        Epoch = report.Epoch;
        if (report.Step % loggingSteps != 0) return;
        _entries.Add(new LogEntry(report.Step, report.Epoch, _sinceLog / (report.Step - _lastLogged), report.NextRates.Count > 0 ? report.NextRates[0] : 0));
        _sinceLog = 0;
        _lastLogged = report.Step;
    }

    public HistoryState State => new([.. _entries], _sinceLog, _total, _lastLogged, _tokens, Steps, Epoch, Operations);

    public void Restore(HistoryState state)
    {
        _entries.Clear();
        _entries.AddRange(state.Entries);
        (_sinceLog, _total, _lastLogged, _tokens, Steps, Epoch, Operations) = (state.SinceLog, state.Total, state.LastLogged, state.Tokens, state.Steps, state.Epoch, state.Operations);
    }

    public TrainingSummary Finish(double seconds, bool stopped)
        => Summary = new TrainingSummary(Steps, Epoch, Steps == 0 ? 0 : _total / Steps, _tokens, seconds, stopped);
}

/// <summary>One entry.</summary>
/// <param name="Step">The step.</param>
/// <param name="Epoch">Epochs done.</param>
/// <param name="Loss">Mean loss since the last entry.</param>
/// <param name="Rate">The rate of the next step, of the first group.</param>
internal sealed record LogEntry(int Step, double Epoch, double Loss, double Rate);
