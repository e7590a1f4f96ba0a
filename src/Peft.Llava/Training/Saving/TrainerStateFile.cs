using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary><c>trainer_state.json</c> in the form of transformers' Trainer, which plotting tools read.</summary>
internal static class TrainerStateFile
{
    /// <param name="history">The log.</param>
    /// <param name="evaluator">The evaluations.</param>
    /// <param name="best">The best evaluation whose weights are in a checkpoint, and that checkpoint; transformers names the two together or not at all.</param>
    /// <param name="options">The options.</param>
    /// <param name="plan">The steps.</param>
    public static string Write(TrainingHistory history, Evaluator evaluator, (EvaluationReport Report, string Folder)? best, TrainingOptions options, StepPlan plan)
    {
        var log = new JsonArray();
        var evaluations = new Queue<EvaluationReport>(evaluator.Reports);
        void Evaluations(int before)
        {
            while (evaluations.TryPeek(out var next) && next.Step < before) log.Add(EvaluationEntry(evaluations.Dequeue()));
        }
        foreach (var entry in history.Entries)
        {
            Evaluations(entry.Step);
            log.Add(new JsonObject
            {
                ["epoch"] = PythonJson.Float(Math.Round(entry.Epoch, 2)),
                ["learning_rate"] = PythonJson.Float(entry.Rate),
                ["loss"] = PythonJson.Float(Math.Round(entry.Loss, 4)),
                ["step"] = entry.Step,
            });
        }
        Evaluations(int.MaxValue);
        if (history.Summary is { } summary)
        {
            double seconds = Math.Max(summary.Seconds, 1e-9);
            log.Add(new JsonObject
            {
                ["epoch"] = PythonJson.Float(Math.Round(summary.Epoch, 2)),
                ["step"] = summary.Steps,
                ["total_flos"] = PythonJson.Float(history.Operations),
                ["train_loss"] = PythonJson.Float(summary.MeanLoss),
                ["train_runtime"] = PythonJson.Float(Math.Round(seconds, 4)),
                ["train_samples_per_second"] = PythonJson.Float(Math.Round((double)summary.Steps * options.BatchSize * options.AccumulationSteps / seconds, 3)),
                ["train_steps_per_second"] = PythonJson.Float(Math.Round(summary.Steps / seconds, 3)),
            });
        }
        return PythonJson.Write(new JsonObject
        {
            ["best_metric"] = best is { } kept ? PythonJson.Float(kept.Report.Metric) : null,
            ["best_model_checkpoint"] = best?.Folder,
            ["epoch"] = PythonJson.Float(history.Epoch),
            ["eval_steps"] = options.Evaluation.Steps,
            ["global_step"] = history.Steps,
            ["is_hyper_param_search"] = false,
            ["is_local_process_zero"] = true,
            ["is_world_process_zero"] = true,
            ["log_history"] = log,
            ["logging_steps"] = PythonJson.Float(options.LoggingSteps),
            ["max_steps"] = plan.TotalSteps,
            ["num_input_tokens_seen"] = 0,
            ["num_train_epochs"] = plan.EpochCount,
            ["save_steps"] = options.SaveSteps,
            ["total_flos"] = PythonJson.Float(history.Operations),
            ["train_batch_size"] = options.BatchSize,
            ["trial_name"] = null,
            ["trial_params"] = null,
        }) + "\n";
    }

    private static JsonObject EvaluationEntry(EvaluationReport report)
    {
        var entry = new JsonObject { ["epoch"] = PythonJson.Float(Math.Round(report.Epoch, 2)) };
        foreach (var (name, value) in report.Values) entry[name] = double.IsFinite(value) ? PythonJson.Float(value) : null;
        entry["eval_runtime"] = PythonJson.Float(Math.Round(report.Seconds, 4));
        entry["step"] = report.Step;
        return entry;
    }
}
