using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Peft.Core;
using Peft.Llava;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class TrainingOptionsTests
{
    private static readonly TrainingOptions Sound = new() { OutputDirectory = "out" };

    [Fact]
    public void Json_gives_the_same_options_back()
    {
        var options = TrainingPresets.FinetuneLora with { OutputDirectory = "x", MaxGradNorm = double.PositiveInfinity, SaveTotalLimit = 3, Weighting = StepWeighting.LlavaExact };
        Assert.Equal(options, TrainingOptions.FromJson(options.ToJson()));
        Assert.Contains("\"Schedule\": \"Cosine\"", options.ToJson(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("null", "the settings are a single value; write an object with the fields of TrainingOptions")]
    [InlineData("{", "the JSON can't be read (Expected depth to be zero at the end of the JSON payload. There is an open JSON object or array that should be closed. "
        + "LineNumber: 0 | BytePositionInLine: 1); the fields are those of TrainingOptions")]
    [InlineData("{\"LearningRat\": 3}", "there is no setting LearningRat; the nearest is LearningRate")]
    [InlineData("{\"Preset\": \"finetune_fast\"}", "there is no preset 'finetune_fast'; choose one of pretrain, finetune, finetune_full_schedule, finetune_lora, finetune_qlora, "
        + "finetune_sqa, finetune_task, finetune_task_lora")]
    [InlineData("{\"BatchSize\": 2.5}", "BatchSize is '2.5', and it must be a whole number")]
    [InlineData("{\"Seed\": null}", "Seed is null, and it must be a whole number")]
    [InlineData("{\"LearningRate\": \"fast\"}", "LearningRate is 'fast', and it must be a number")]
    [InlineData("{\"GradientCheckpointing\": \"perhaps\"}", "GradientCheckpointing is 'perhaps', and it must be true or false")]
    [InlineData("{\"SaveStrategy\": 1}", "SaveStrategy is '1', and it must be one of None, Steps, Epoch")]
    [InlineData("{\"Trainable\": \"lora\"}", "Trainable is 'lora', and it is a group of settings: Adapter, Projector, LanguageModel, Head, ImageNewline, FreezeAdapterAfterCreation")]
    [InlineData("{\"Trainable\": {\"Adapted\": true}}", "there is no setting Trainable.Adapted; the nearest is Adapter")]
    [InlineData("{\"Epochs\": {\"a\": 1}}", "Epochs is a group of settings, and it takes one value")]
    [InlineData("{\"Epochs\": 1, \"epochs\": 2}", "Epochs is given 2 times")]
    public void Json_that_is_none_of_these_options_is_refused(string json, string problem)
        => Assert.Equal([problem], Assert.Throws<TrainingOptionsException>(() => TrainingOptions.FromJson(json)).Problems);

    [Fact]
    public void All_that_cannot_be_read_is_named_together()
        => Assert.Equal(["there is no setting Bathc; the nearest is BatchSize", "Seed is 'x', and it must be a whole number", "LossScaling.GrowthInterval is 'y', and it must be a whole number"],
            Assert.Throws<TrainingOptionsException>(() => TrainingOptions.FromJson("""{"Bathc": 1, "Seed": "x", "LossScaling": {"GrowthInterval": "y"}}""")).Problems);

    [Fact]
    public void A_preset_is_a_start_that_fields_change_and_that_stays_as_it_is()
    {
        var options = TrainingOptions.FromJson("""{"preset": "Finetune_LoRA", "OutputDirectory": "x", "learningRate": 3e-4, "Trainable": {"Projector": false}, "SaveTotalLimit": null}""");
        Assert.Equal(TrainingPresets.FinetuneLora with { OutputDirectory = "x", LearningRate = 3e-4, Trainable = TrainableParts.Lora(projector: false), SaveTotalLimit = null }, options);
        Assert.True(TrainingPresets.FinetuneLora.Trainable.Projector);
        Assert.Equal(2e-4, TrainingPresets.FinetuneLora.LearningRate);
        Assert.Null(TrainingPresets.Find("none"));
    }

    [Fact]
    public void A_file_gives_the_same_options_back()
    {
        string folder = Directory.CreateTempSubdirectory("options-").FullName, path = Path.Combine(folder, "training.json");
        var options = Everything();
        options.Save(path);
        Assert.Equal(options, TrainingOptions.Load(path));
        string missing = Path.Combine(folder, "none.json");
        Assert.Equal([$"the file {missing} can't be read (Could not find file '{missing}')"], Assert.Throws<TrainingOptionsException>(() => TrainingOptions.Load(missing)).Problems);
        string nowhere = Path.Combine(folder, "no", "such", "folder.json");
        Assert.Equal($"{nowhere} could not be written: its folder does not exist. An earlier file of this name is as it was. Create {Path.GetDirectoryName(nowhere)} first, or correct the path.",
            Assert.Throws<FileWriteException>(() => options.Save(nowhere)).Message);
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Every_setting_comes_back_from_json_with_another_value_than_its_default()
    {
        var (start, other) = (new TrainingOptions(), Everything());
        foreach (var property in typeof(TrainingOptions).GetProperties().Where(p => p.CanWrite))
            Assert.False(Equals(property.GetValue(start), property.GetValue(other)), $"{property.Name} is at its default");
        Assert.Equal(other, TrainingOptions.FromJson(other.ToJson()));
    }

    [Fact]
    public void A_host_binds_options_and_names_all_problems_at_once()
    {
        static IConfigurationSection Section(string json)
        {
            using var stream = new MemoryStream(System.Text.Encoding.UTF8.GetBytes(json));
            return new ConfigurationBuilder().AddJsonStream(stream).Build().GetSection("Training");
        }
        static IOptions<TrainingOptions> Host(string json, Func<TrainingOptions, TrainingOptions>? change = null)
            => new ServiceCollection().AddLlavaTraining(Section(json), change).BuildServiceProvider().GetRequiredService<IOptions<TrainingOptions>>();
        const string good = """{"Training": {"Preset": "finetune_qlora", "OutputDirectory": "out", "MaxGradNorm": "Infinity", "Tf32": false, "Trainable": {"Projector": "False"}}}""";
        var wanted = TrainingPresets.FinetuneQlora with { OutputDirectory = "out", MaxGradNorm = double.PositiveInfinity, Tf32 = false, Trainable = TrainableParts.Lora(projector: false) };
        Assert.Equal(wanted, Host(good).Value);
        Assert.Equal(wanted with { Seed = 7 }, Host(good, o => o with { Seed = 7 }).Value);
        Assert.Equal(wanted, TrainingOptions.FromConfiguration(Section(good)));

        const string bad = """{"Training": {"LearnRate": 1, "BatchSize": "many", "Epochs": -1, "Trainable": {"Head": true}}}""";
        string[] problems =
        [
            "BatchSize is 'many', and it must be a whole number", "there is no setting LearnRate; the nearest is LearningRate", "OutputDirectory is empty; name a folder for the results",
            "Epochs -1 and MaxSteps -1 leave nothing to do; set one of them above 0",
            "an adapter and the language model itself are both to be trained; choose TrainableParts.Lora() or TrainableParts.Full()",
        ];
        Assert.Equal(problems, Assert.Throws<OptionsValidationException>(() => Host(bad).Value).Failures);
        Assert.Equal(problems, Assert.Throws<TrainingOptionsException>(() => TrainingOptions.FromConfiguration(Section(bad))).Problems);
        var services = new ServiceCollection().AddLlavaTraining(Section(bad)).BuildServiceProvider();
        Assert.Equal(problems, Assert.Throws<OptionsValidationException>(services.GetRequiredService<IStartupValidator>().Validate).Failures);
    }

    [Fact]
    public void A_monitor_follows_the_configuration()
    {
        var memory = new ConfigurationBuilder().AddInMemoryCollection(new Dictionary<string, string?> { ["OutputDirectory"] = "a" }).Build();
        var monitor = new ServiceCollection().AddLlavaTraining(memory).BuildServiceProvider().GetRequiredService<IOptionsMonitor<TrainingOptions>>();
        Assert.Equal("a", monitor.CurrentValue.OutputDirectory);
        memory["OutputDirectory"] = "b";
        memory.Reload();
        Assert.Equal("b", monitor.CurrentValue.OutputDirectory);
    }

    private static TrainingOptions Everything() => new()
    {
        OutputDirectory = "x", BaseModelName = "base", Trainable = TrainableParts.ProjectorOnly(), LearningRate = 1.5e-4, ProjectorLearningRate = 2.5e-5,
        Schedule = ScheduleKind.CosineWithRestarts, ScheduleCycles = 3, WarmupSteps = 4, WarmupRatio = 0.1, Optimizer = OptimizerKind.Lion8Bit, WeightDecay = 0.01, AdamBeta1 = 0.8,
        AdamBeta2 = 0.95, AdamEpsilon = 1e-6, MaxGradNorm = double.PositiveInfinity, Epochs = 1.5, MaxSteps = 9, BatchSize = 3, AccumulationSteps = 5, DropLastBatch = true, LongestBatchFirst = true,
        Ordering = SampleOrdering.ByLength, Seed = -1, Weighting = StepWeighting.LlavaExact, Precision = TrainingPrecision.Float16,
        LossScaling = new GradientScalerOptions { InitialScale = 1024, GrowthInterval = 7 },
        Evaluation = new EvaluationOptions
        {
            Strategy = EvaluationStrategy.Epoch, Steps = 11, BatchSize = 2, MetricForBest = "exact", GreaterIsBetter = true, LoadBestAtEnd = true, EarlyStoppingPatience = 3,
            EarlyStoppingThreshold = 0.01,
        },
        Tf32 = true, UseCpu = true, GradientCheckpointing = true, MaxLength = 77, DataWorkers = 2,
        SaveStrategy = SaveStrategy.Epoch, SaveSteps = 8, SaveTotalLimit = 2, ReplaceCheckpoints = true, MaxShardBytes = 70_000, SaveAdapterAsPickle = true, LoggingSteps = 6,
    };

    [Fact]
    public void All_faults_are_reported_together()
    {
        var bad = new TrainingOptions
        {
            LearningRate = 0, ProjectorLearningRate = -2, WeightDecay = -0.1, AdamBeta1 = 1, AdamBeta2 = -1, AdamEpsilon = 0, MaxGradNorm = -1, WarmupRatio = 1.5,
            WarmupSteps = -3, ScheduleCycles = 0, Epochs = 0, BatchSize = 0, AccumulationSteps = 0, MaxLength = 0, DataWorkers = -1, SaveSteps = 0, SaveTotalLimit = 0, MaxShardBytes = 0,
            LoggingSteps = 0, Evaluation = new EvaluationOptions { Steps = 0, BatchSize = -1, MetricForBest = "eval_", EarlyStoppingPatience = 0, EarlyStoppingThreshold = double.NaN, LoadBestAtEnd = true }, Schedule = ScheduleKind.Polynomial, Trainable = new TrainableParts(),
        };
        Assert.Equal(
        [
            "OutputDirectory is empty; name a folder for the results",
            "LearningRate 0 is not a positive number",
            "ProjectorLearningRate -2 is not a positive number; null takes LearningRate",
            "WeightDecay -0.1 is negative or not a number",
            "AdamBeta1 1 is not in [0, 1)",
            "AdamBeta2 -1 is not in [0, 1)",
            "AdamEpsilon 0 is not a positive number",
            "MaxGradNorm -1 is negative; 0 switches clipping off",
            "WarmupRatio 1.5 is not in [0, 1]",
            "WarmupSteps -3 is negative",
            "ScheduleCycles 0 is not positive",
            "Epochs 0 and MaxSteps -1 leave nothing to do; set one of them above 0",
            "BatchSize 0 is not positive",
            "AccumulationSteps 0 is not positive",
            "MaxLength 0 is not positive",
            "DataWorkers -1 is negative; 0 prepares batches between the steps",
            "SaveSteps 0 is not positive; choose SaveStrategy.None to save at the end only",
            "SaveTotalLimit 0 is not positive; null keeps all checkpoints",
            "MaxShardBytes 0 is not positive",
            "LoggingSteps 0 is not positive",
            "the polynomial schedule ends at 1E-07 and cannot start at LearningRate 0",
            "Evaluation.Steps 0 is not positive; choose EvaluationStrategy.None not to evaluate",
            "Evaluation.BatchSize -1 is not positive",
            "Evaluation.MetricForBest is empty; give loss, train_loss or a score's name",
            "Evaluation.EarlyStoppingPatience 0 is not positive; null never stops the training",
            "Evaluation.EarlyStoppingThreshold NaN is negative or not a number",
            "Evaluation.LoadBestAtEnd needs evaluations; set Strategy to Steps or Epoch",
            "Evaluation.EarlyStoppingPatience needs evaluations; set Strategy to Steps or Epoch",
            "nothing is to be trained; choose TrainableParts.Lora(), ProjectorOnly() or Full()",
        ], bad.Problems());
        Assert.StartsWith("The training settings have 29 problems:\n  - OutputDirectory", Assert.Throws<TrainingOptionsException>(bad.ThrowIfInvalid).Message, StringComparison.Ordinal);
        Assert.Empty(Sound.Problems());
    }

    [Fact]
    public void A_host_can_validate_bound_options()
    {
        IValidateOptions<TrainingOptions> validator = new TrainingOptionsValidator();
        Assert.True(validator.Validate(null, Sound).Succeeded);
        Assert.Equal(["BatchSize 0 is not positive"], validator.Validate(null, Sound with { BatchSize = 0 }).Failures);
    }

    [Fact]
    public void Parts_that_contradict_each_other_are_refused()
    {
        Assert.Equal(["an adapter and the language model itself are both to be trained; choose TrainableParts.Lora() or TrainableParts.Full()"],
            (TrainableParts.Lora() with { Head = true }).Problems());
        Assert.Equal(["the adapter is both to be trained and to be frozen; leave Adapter false to freeze it"],
            (TrainableParts.Lora() with { FreezeAdapterAfterCreation = true }).Problems());
    }
}
