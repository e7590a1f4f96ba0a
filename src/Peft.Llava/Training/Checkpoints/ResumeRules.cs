using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>What decides a run's numbers beside base and data, by name and value: a resume with another value would be another run.</summary>
internal static class ResumeRules
{
    /// <summary>The rules of a training.</summary>
    /// <param name="options">Its options.</param>
    /// <param name="worldSize">The number of processes.</param>
    /// <param name="totalSteps">Its steps.</param>
    /// <param name="warmupSteps">Of these the warm-up.</param>
    /// <param name="maxLength">The longest sample that it takes, in tokens.</param>
    /// <param name="data">Its samples.</param>
    /// <param name="peft">Its adapters, or null.</param>
    public static Dictionary<string, string> Of(TrainingOptions options, int worldSize, int totalSteps, int warmupSteps, int maxLength, ITrainingData data, PeftModel? peft)
    {
        var rules = new Dictionary<string, string>
        {
            [nameof(TrainingOptions.BatchSize)] = Text(options.BatchSize * worldSize),
            [nameof(TrainingOptions.AccumulationSteps)] = Text(options.AccumulationSteps),
            [nameof(TrainingOptions.DropLastBatch)] = options.DropLastBatch.ToString(),
            [nameof(TrainingOptions.Ordering)] = options.Ordering.ToString(),
            [nameof(TrainingOptions.LongestBatchFirst)] = options.LongestBatchFirst.ToString(),
            [nameof(ITrainingData.Sampling)] = data.Sampling?.Rule ?? "every sample once",
            [nameof(TrainingOptions.Weighting)] = options.Weighting.ToString(),
            [nameof(TrainingOptions.Seed)] = Text(options.Seed),
            [nameof(TrainingOptions.Optimizer)] = options.Optimizer.ToString(),
            [nameof(TrainingOptions.MaxLength)] = Text(maxLength),
            [nameof(LLaVATrainer.TotalSteps)] = Text(totalSteps),
            [nameof(TrainingOptions.LearningRate)] = Text(options.LearningRate),
            [nameof(TrainingOptions.ProjectorLearningRate)] = options.ProjectorLearningRate is { } rate ? Text(rate) : "null",
            [nameof(TrainingOptions.Schedule)] = options.Schedule.ToString(),
            [nameof(TrainingOptions.ScheduleCycles)] = options.ScheduleCycles is { } cycles ? Text(cycles) : "null",
            [nameof(TrainingOptions.WarmupSteps)] = Text(warmupSteps),
            [nameof(TrainingOptions.WeightDecay)] = Text(options.WeightDecay),
            [nameof(TrainingOptions.AdamBeta1)] = Text(options.AdamBeta1),
            [nameof(TrainingOptions.AdamBeta2)] = Text(options.AdamBeta2),
            [nameof(TrainingOptions.AdamEpsilon)] = Text(options.AdamEpsilon),
            [nameof(TrainingOptions.MaxGradNorm)] = Text(options.MaxGradNorm),
        };
        foreach (string adapter in peft?.AdapterNames ?? [])
            foreach (var (name, value) in Of(peft!.ConfigOf(adapter))) rules[NameIn(adapter, name)] = value;
        return rules;
    }

    /// <summary>All in which a training differs from a checkpoint's: one clause each.</summary>
    /// <param name="checkpoint">The checkpoint's folder.</param>
    /// <param name="state">What it remembers.</param>
    /// <param name="now">The training's rules.</param>
    /// <param name="peft">Its adapters, or null.</param>
    public static List<string> Differences(string checkpoint, TrainingState state, Dictionary<string, string> now, PeftModel? peft)
    {
        var then = state.RecordsAllRules ? state.Rules : WithFiles(checkpoint, state.Rules, peft);
        return [.. now.Where(r => then.TryGetValue(r.Key, out string? was) ? was != r.Value : state.RecordsAllRules)
            .Select(r => $"{r.Key} is {r.Value} and was {then.GetValueOrDefault(r.Key, "not there")}")];
    }

    /// <summary>Before version 3 a checkpoint recorded fewer rules; its other files tell some of the rest. What none of them tells cannot be compared.</summary>
    private static Dictionary<string, string> WithFiles(string checkpoint, Dictionary<string, string> rules, PeftModel? peft)
    {
        var all = new Dictionary<string, string>(rules);
        if (MaxStepsOf(Path.Combine(checkpoint, "trainer_state.json")) is { } steps) all[nameof(LLaVATrainer.TotalSteps)] = Text(steps);
        foreach (string adapter in peft?.AdapterNames ?? [])
        {
            string config = Path.Combine(checkpoint, adapter == PeftModelExtensions.DefaultAdapter ? "" : adapter, AdapterConfigJson.FileName);
            if (!File.Exists(config)) continue;
            foreach (var (name, value) in Of(AdapterConfigJson.Read(config))) all[NameIn(adapter, name)] = value;
        }
        return all;
    }

    private static int? MaxStepsOf(string path)
    {
        if (!File.Exists(path)) return null;
        try
        {
            return (int?)JsonNode.Parse(File.ReadAllBytes(path))?["max_steps"];
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw new CheckpointException(Path.GetDirectoryName(path)!, $"its trainer_state.json can't be read ({e.Message.TrimEnd('.')})", "Resume from the checkpoint before it.", e);
        }
    }

    private static IEnumerable<(string Name, string Value)> Of(LoraConfig config) =>
    [
        ("r", Text(config.Rank)),
        ("lora_alpha", Text(config.Alpha)),
        ("lora_dropout", Text(config.Dropout)),
        ("use_rslora", config.UseRsLora.ToString()),
        ("alpha_pattern", config.AlphaPattern.Count == 0 ? "none" : string.Join(", ", config.AlphaPattern.Select(p => $"{p.Key}: {Text(p.Value)}"))),
    ];

    private static string NameIn(string adapter, string name) => adapter == PeftModelExtensions.DefaultAdapter ? name : $"{adapter}.{name}";

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    private static string Text(double number) => number.ToString("R", CultureInfo.InvariantCulture);
}
