using Peft.Core;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>A data set is given in one form, whatever is trained, and to the evaluation as well.</summary>
[Collection(ProcessWideState.Name)]
public sealed class DatasetFormTests
{
    [Theory, Trait("Fault", "use-3")]
    [InlineData("lora"), InlineData("projector"), InlineData("full")]
    public void A_data_set_is_trained_and_evaluated_on(string what)
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(3);
        var (data, heldOut) = (tiny.Dataset(4), tiny.Dataset(3));
        var options = new TrainingOptions
        {
            OutputDirectory = folder.Path, LearningRate = 0.01, MaxSteps = 2, BatchSize = 2, SaveStrategy = SaveStrategy.None, MaxLength = 256,
            Trainable = what switch { "projector" => TrainableParts.ProjectorOnly(), "full" => TrainableParts.Full(), _ => TrainableParts.Lora() },
            Evaluation = new EvaluationOptions { Strategy = EvaluationStrategy.Steps, Steps = 1, BatchSize = 3 },
        };
        using var peft = what == "lora" ? tiny.Model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] }) : null;
        var evaluation = new EvaluationSource { Dataset = heldOut };
        using var trainer = peft is null ? new LLaVATrainer(tiny.Model, data, options) { Evaluation = evaluation } : new LLaVATrainer(peft, data, options) { Evaluation = evaluation };

        trainer.Train();

        Assert.Equal(2, trainer.Evaluations.Count);
        Assert.Equal(Evaluation.Loss(tiny.Model, new LlavaTrainingData(heldOut, tiny.Model.Config, 256), 3).Loss, trainer.Evaluations[1].Loss!.Value, 1e-6);
    }

    [Fact]
    public void Two_forms_at_once_are_refused()
    {
        using var run = new TinyRun();
        using var tiny = TinyLlava.Create(3);
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { Evaluation = new EvaluationOptions { Strategy = EvaluationStrategy.Epoch } })
        {
            Evaluation = new EvaluationSource { Data = run, Dataset = tiny.Dataset(2) },
        };
        Assert.Contains("the evaluation has Data and a Dataset; give one of them", Assert.Throws<TrainingOptionsException>(() => trainer.Train()).Message, StringComparison.Ordinal);
    }
}
