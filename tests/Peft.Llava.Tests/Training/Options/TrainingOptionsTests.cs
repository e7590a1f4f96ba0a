using Microsoft.Extensions.Options;
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
    [InlineData("null", "the JSON is null; write an object with the fields of TrainingOptions")]
    [InlineData("{\"LearningRat\": 3}", "the JSON can't be read (The JSON property 'LearningRat' could not be mapped to any .NET member contained in type 'Peft.Llava.TrainingOptions'); the fields are those of TrainingOptions")]
    public void Json_that_is_none_of_these_options_is_refused(string json, string problem)
        => Assert.Equal([problem], Assert.Throws<TrainingOptionsException>(() => TrainingOptions.FromJson(json)).Problems);

    [Fact]
    public void All_faults_are_reported_together()
    {
        var bad = new TrainingOptions
        {
            LearningRate = 0, ProjectorLearningRate = -2, WeightDecay = -0.1, AdamBeta1 = 1, AdamBeta2 = -1, AdamEpsilon = 0, MaxGradNorm = -1, WarmupRatio = 1.5,
            WarmupSteps = -3, ScheduleCycles = 0, Epochs = 0, BatchSize = 0, AccumulationSteps = 0, MaxLength = 0, DataWorkers = -1, SaveSteps = 0, SaveTotalLimit = 0,
            LoggingSteps = 0, Schedule = ScheduleKind.Polynomial, Trainable = new TrainableParts(),
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
            "LoggingSteps 0 is not positive",
            "the polynomial schedule ends at 1E-07 and cannot start at LearningRate 0",
            "nothing is to be trained; choose TrainableParts.Lora(), ProjectorOnly() or Full()",
        ], bad.Problems());
        Assert.StartsWith("The training settings have 21 problems:\n  - OutputDirectory", Assert.Throws<TrainingOptionsException>(bad.ThrowIfInvalid).Message, StringComparison.Ordinal);
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
