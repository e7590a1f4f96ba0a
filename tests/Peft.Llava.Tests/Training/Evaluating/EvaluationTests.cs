using Peft.Core;
using Peft.Llava;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

[Collection(ProcessWideState.Name)]
public sealed class EvaluationTests
{
    [Fact]
    public void The_loss_is_the_mean_over_all_tokens_whatever_the_batches()
    {
        using var run = new TinyRun();
        var one = Evaluation.Loss(run.Model, run, 1);
        var all = Evaluation.Loss(run.Model, run, 7);
        Assert.Equal(one.Loss, all.Loss, 1e-6);
        Assert.Equal(one.Tokens, all.Tokens);
        Assert.Equal(7, all.Samples);
        Assert.Equal(Math.Exp(all.Loss), all.Perplexity);
    }

    [Fact]
    public void A_set_without_labels_is_refused()
    {
        using var run = new TinyRun { Unsupervised = { 0, 1, 2, 3, 4, 5, 6 } };
        Assert.Equal("No sample of the evaluation set has a label. Check its answers and the length limit.",
            Assert.Throws<TrainingDataException>(() => Evaluation.Loss(run.Model, run)).Message);
        Assert.False(run.Model.training);
    }
}
