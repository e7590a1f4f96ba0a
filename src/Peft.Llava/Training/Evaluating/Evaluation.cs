using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The loss of a model on samples it does not learn from.</summary>
public static class Evaluation
{
    /// <summary>
    /// The mean loss over all supervised tokens, without dropout and gradients. The model's mode is put back, and no random number is drawn, so
    /// a training with evaluations gives the losses of one without.
    /// </summary>
    /// <param name="model">The model, with whatever adapters are active on it.</param>
    /// <param name="data">The samples.</param>
    /// <param name="batchSize">Samples at a time.</param>
    /// <param name="cancellation">Ends it between two batches.</param>
    /// <exception cref="TrainingDataException">No sample has a label.</exception>
    public static EvaluationResult Loss(LlavaModel model, ITrainingData data, int batchSize = 8, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(data);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(batchSize);
        using var mode = new EvaluationMode(model);
        double sum = 0;
        long tokens = 0;
        foreach (int[] indices in Enumerable.Range(0, data.Count).Chunk(batchSize))
        {
            cancellation.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            using var batch = data.Batch(indices);
            if (batch.SupervisedTokens == 0) continue;
            sum += model.LossSum(batch).Sum.item<float>();
            tokens += batch.SupervisedTokens;
        }
        if (tokens == 0) throw new TrainingDataException("No sample of the evaluation set has a label. Check its answers and the length limit.");
        return new EvaluationResult(sum / tokens, tokens, data.Count);
    }
}

/// <summary>What an evaluation gave.</summary>
/// <param name="Loss">The mean over all supervised tokens.</param>
/// <param name="Tokens">How many those are.</param>
/// <param name="Samples">Number of samples.</param>
public sealed record EvaluationResult(double Loss, long Tokens, int Samples)
{
    /// <summary>e to the loss.</summary>
    public double Perplexity => Math.Exp(Loss);
}
