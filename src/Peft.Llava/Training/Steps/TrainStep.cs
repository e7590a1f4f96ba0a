using System.Diagnostics;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What the passes over the micro-batches of one step gave.</summary>
/// <param name="Loss">The step's loss, by the weighting.</param>
/// <param name="MicroLosses">Each micro-batch's mean over its own tokens.</param>
/// <param name="Norm">The norm over all gradients, and the clipping factor.</param>
/// <param name="Tokens">Tokens of all samples.</param>
/// <param name="SupervisedTokens">Tokens with a label.</param>
/// <param name="Skipped">Whether a gradient overflowed in float16, so that no weight was moved; the norm is not finite then.</param>
public sealed record StepResult(
    double Loss, IReadOnlyList<double> MicroLosses, GradientNorm Norm, long Tokens, long SupervisedTokens, bool Skipped = false)
{
    /// <summary>Seconds of the passes through the model, the gradient norm and the update.</summary>
    public double ComputeSeconds { get; init; }
}

/// <summary>
/// One optimizer step: passes over its micro-batches, gradient norm, update. Either it is done whole, or it throws and no weight has moved.
/// </summary>
/// <param name="model">The model, in training mode.</param>
/// <param name="optimizer">The optimizer over the trained parameters.</param>
/// <param name="weighting">How micro-batches weigh.</param>
/// <param name="accumulationSteps">Micro-batches of a full step; the LLaVA-exact mode divides by it even where there are fewer.</param>
/// <param name="maxNorm">The bound of the gradient norm; 0 for none.</param>
/// <param name="scaler">Scales the loss, for a base in float16; null for no scaling.</param>
/// <param name="dropout">The adapters' source of masks, told of each micro-batch; null if they have another one.</param>
/// <param name="exchange">The other processes of a data-parallel training; null for none. Counts, losses and gradients are then those of all.</param>
public sealed class TrainStep(
    LlavaModel model, TrainingOptimizer optimizer, StepWeighting weighting, int accumulationSteps, double maxNorm, GradientScaler? scaler = null,
    TrainingDropout? dropout = null, GradientExchange? exchange = null)
{
    private static readonly TimeSpan ReleaseInterval = TimeSpan.FromSeconds(0.25);
    private readonly Stopwatch _sinceRelease = Stopwatch.StartNew(), _sinceTrim = Stopwatch.StartNew();

    /// <summary>Whether the last step's update had begun when it threw, so that weights may have moved.</summary>
    internal bool UpdateBegan { get; private set; }

    private bool Exact => weighting == StepWeighting.LlavaExact;

    /// <summary>Does a step with the rates that the optimizer's groups have.</summary>
    /// <param name="step">The step, from 1, for messages.</param>
    /// <param name="microBatches">The step's batches; they stay the caller's.</param>
    /// <param name="onGradients">Called when the gradients are whole and not yet clipped; not in a step that is skipped.</param>
    /// <param name="cancellation">Ends the step between two micro-batches; no weight has moved then.</param>
    /// <exception cref="NoSupervisedTokensException">No token has a label (not in the LLaVA-exact mode).</exception>
    /// <exception cref="NonFiniteLossException">
    /// A loss is NaN or infinite, or a gradient is and no scaler is there that could lower its scale.
    /// </exception>
    /// <exception cref="ProcessGroupException">Another process has a fault; no weight has moved in any of them.</exception>
    public StepResult Run(
        int step, IReadOnlyList<LlavaBatch> microBatches, Action? onGradients = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(microBatches);
        using var scope = NewDisposeScope();
        UpdateBegan = false;
        try
        {
            long supervised = (long)Sum(microBatches.Sum(b => b.SupervisedTokens));
            if (supervised == 0 && !Exact) throw NothingToLearn(step, [.. microBatches.SelectMany(b => b.SampleIds)]);
            var losses = new List<double>(microBatches.Count);
            var compute = new Stopwatch();
            Exception? fault = null;
            try
            {
                foreach (var batch in microBatches)
                {
                    cancellation.ThrowIfCancellationRequested();
                    dropout?.Begin(step, losses.Count);
                    compute.Start();
                    losses.Add(Backward(step, losses.Count, batch, supervised));
                    compute.Stop();
                }
            }
            catch (Exception e) when (exchange is { Alone: false })
            {
                fault = e;
            }
            exchange?.Agree(fault, step);
            compute.Start();
            if (Exact) FillMissingGradients();
            exchange?.AddGradients([.. optimizer.Groups.SelectMany(g => g.Parameters)]);
            scaler?.Unscale(optimizer.Groups.SelectMany(g => g.Parameters));
            var norm = GradientNorm.Measure(optimizer.Groups.SelectMany(g => g.Parameters), maxNorm);
            compute.Stop();
            bool overflow = !double.IsFinite(norm.Norm);
            if (overflow && scaler is not { CanFall: true })
                throw BrokenGradient(step, microBatches, supervised, norm.Norm);
            if (!overflow)
            {
                onGradients?.Invoke();
                compute.Start();
                UpdateBegan = true;
                optimizer.Step(norm.Factor);
                compute.Stop();
            }
            scaler?.Update(overflow);
            double loss = Exact
                ? losses.Average()
                : Sum(losses.Zip(microBatches, (l, b) => b.SupervisedTokens == 0 ? 0 : l * b.SupervisedTokens).Sum()) / supervised;
            return new StepResult(loss, losses, norm, (long)Sum(microBatches.Sum(b => (long)b.Layout.TokenCount)), supervised, overflow)
            {
                ComputeSeconds = compute.Elapsed.TotalSeconds,
            };
        }
        finally
        {
            optimizer.ZeroGrad();
            BackwardTensors.Release();
            ReleaseHandles();
        }
    }

    /// <summary>The fault of a step without labels; a process whose part holds no sample leaves the word to those that have some.</summary>
    private NoSupervisedTokensException NothingToLearn(int step, IReadOnlyList<string> samples)
    {
        var fault = new NoSupervisedTokensException(step, samples);
        exchange?.Agree(samples.Count > 0 ? fault : null, step);
        return fault;
    }

    private double Sum(double own) => exchange?.Sum(own) ?? own;

    /// <summary>Not after every tiny step: it takes a millisecond or two.</summary>
    private void ReleaseHandles()
    {
        if (_sinceRelease.Elapsed < ReleaseInterval) return;
        NativeHandles.Release();
        if (AllocatorTuning.ReleaseWhereCheap(_sinceTrim.Elapsed)) _sinceTrim.Restart();
        _sinceRelease.Restart();
    }

    private double Backward(int step, int number, LlavaBatch batch, long supervisedInStep)
    {
        // The mean over no token is NaN and its gradient zero: LLaVA's step goes on with that.
        if (batch.SupervisedTokens == 0) return double.NaN;
        using var scope = NewDisposeScope();
        var (sum, count) = model.LossSum(batch);
        dropout?.Replay();
        using var share = sum / (Exact ? (double)count * accumulationSteps : supervisedInStep);
        double loss = sum.item<float>() / count;
        if (!double.IsFinite(loss)) throw new NonFiniteLossException(step, "the loss", loss, batch.SampleIds, Source(step, number, batch));
        // A batch that nothing trained takes part in (the projector alone is trained, and there is no image) has no graph.
        if (!share.requires_grad) return loss;
        using var scaled = scaler is null ? null : share * scaler.Scale;
        using (BackwardTensors.SinglePass()) (scaled ?? share).backward();
        return loss;
    }

    private NonFiniteSource? Source(int step, int number, LlavaBatch batch)
    {
        dropout?.Begin(step, number);
        return NonFiniteSource.InForward(model, batch);
    }

    /// <summary>The fault of a gradient that is not finite. The process whose own part broke speaks; where only the sum over all did, every one does.</summary>
    private NonFiniteLossException BrokenGradient(int step, IReadOnlyList<LlavaBatch> microBatches, long supervised, double norm)
    {
        Exception? found = null;
        try
        {
            found = FindBroken(step, microBatches, supervised, norm);
        }
        catch (Exception e) when (exchange is { Alone: false })
        {
            found = e;
        }
        exchange?.Agree(found, step);
        return found as NonFiniteLossException ?? new NonFiniteLossException(step, "the gradient", norm, [.. microBatches.SelectMany(b => b.SampleIds)]);
    }

    /// <summary>Finds the micro-batch whose own gradient is not finite, by passing each again on its own; null if there is none.</summary>
    private NonFiniteLossException? FindBroken(int step, IReadOnlyList<LlavaBatch> microBatches, long supervised, double norm)
    {
        for (int number = 0; number < microBatches.Count; number++)
        {
            optimizer.ZeroGrad();
            dropout?.Begin(step, number);
            Backward(step, number, microBatches[number], supervised);
            if (NonFiniteSource.InGradients(model, optimizer.Groups.SelectMany(g => g.Parameters)) is not { } found) continue;
            return new NonFiniteLossException(step, "the gradient", norm, microBatches[number].SampleIds, Source(step, number, microBatches[number]) ?? found);
        }
        return null;
    }

    /// <summary>
    /// LLaVA sends a zero image through tower and projector where a batch has none, so that no gradient is ever absent: momentum and decay go
    /// on moving every parameter. The gradient of that detour is zero, so zero is written without it.
    /// </summary>
    private void FillMissingGradients()
    {
        using var noGrad = no_grad();
        foreach (var parameter in optimizer.Groups.SelectMany(g => g.Parameters))
        {
            using var gradient = parameter.Parameter.grad;
            if (gradient is null) parameter.Parameter.grad = zeros_like(parameter.Parameter).DetachFromDisposeScope();
        }
    }
}
