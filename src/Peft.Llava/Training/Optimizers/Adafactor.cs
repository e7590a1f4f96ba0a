using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Settings of <see cref="Adafactor"/>, with the defaults of transformers' <c>Adafactor</c>.</summary>
public sealed record AdafactorSettings
{
    /// <summary>Added to the squared gradient.</summary>
    public double GradientEpsilon { get; init; } = 1e-30;

    /// <summary>The smallest root mean square of a parameter that its rate is scaled by.</summary>
    public double ParameterEpsilon { get; init; } = 1e-3;

    /// <summary>Root mean square above which an update is scaled down.</summary>
    public double ClipThreshold { get; init; } = 1;

    /// <summary>Power of the step in the second moment's decay.</summary>
    public double DecayRate { get; init; } = -0.8;

    /// <summary>Decay of a first moment; null for none.</summary>
    public double? Beta1 { get; init; }

    /// <summary>Scale the rate by the parameter's own size.</summary>
    public bool ScaleParameter { get; init; } = true;

    /// <summary>A rate that follows from the step alone; the group's rate is not used.</summary>
    public bool RelativeStep { get; init; } = true;

    /// <summary>With <see cref="RelativeStep"/>: a slow start.</summary>
    public bool WarmupInit { get; init; }
}

/// <summary>
/// Adafactor (Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost"), as in transformers: a matrix keeps the
/// means of its rows and columns in place of a second moment.
/// </summary>
/// <param name="groups">The parameters; they remain the model's.</param>
/// <param name="settings">The settings; transformers' Trainer uses <see cref="AdafactorSettings.ScaleParameter"/> and
/// <see cref="AdafactorSettings.RelativeStep"/> false.</param>
public sealed class Adafactor(IReadOnlyList<ParameterGroup> groups, AdafactorSettings settings) : TrainingOptimizer(groups)
{
    /// <inheritdoc/>
    protected override void StepCore(double gradientScale)
    {
        foreach (var group in Groups)
        {
            foreach (var (parameter, gradient) in WithGradient(group))
            {
                using var scope = NewDisposeScope();
                if (gradientScale != 1) gradient.mul_(gradientScale);
                Step(parameter, gradient.to(ScalarType.Float32), group);
            }
        }
    }

    /// <inheritdoc/>
    protected override bool FitsShape(string kind, Tensor value, NamedParameter parameter) => kind switch
    {
        "exp_avg_sq_row" => value.shape.SequenceEqual(RowShape(parameter.Parameter)),
        "exp_avg_sq_col" => value.shape.SequenceEqual(ColumnShape(parameter.Parameter)),
        _ => base.FitsShape(kind, value, parameter),
    };

    private void Step(NamedParameter parameter, Tensor gradient, ParameterGroup group)
    {
        var p = parameter.Parameter;
        var full = p.to(ScalarType.Float32);
        int step = CountStep(parameter);
        double rate = Rate(group.Rate, step, settings.ScaleParameter ? RootMeanSquare(full).ToDouble() : 0);
        double keep = 1 - Math.Pow(step, settings.DecayRate);
        var update = gradient.square().add_(settings.GradientEpsilon);
        if (p.dim() >= 2)
        {
            var row = Slot32(parameter, "exp_avg_sq_row", RowShape(p));
            var column = Slot32(parameter, "exp_avg_sq_col", ColumnShape(p));
            row.mul_(keep).add_(update.mean([-1]), alpha: 1 - keep);
            column.mul_(keep).add_(update.mean([-2]), alpha: 1 - keep);
            update = (row / row.mean([-1], keepdim: true)).rsqrt_().unsqueeze(-1).mul(column.unsqueeze(-2).rsqrt()).mul_(gradient);
        }
        else
        {
            var second = Slot32(parameter, "exp_avg_sq", p.shape);
            second.mul_(keep).add_(update, alpha: 1 - keep);
            update = second.rsqrt().mul_(gradient);
        }
        update.div_(Math.Max(1, RootMeanSquare(update).ToDouble() / settings.ClipThreshold)).mul_(rate);
        if (settings.Beta1 is double beta1)
        {
            var first = Slot32(parameter, "exp_avg", p.shape);
            first.mul_(beta1).add_(update, alpha: 1 - beta1);
            update = first;
        }
        if (p.dtype == ScalarType.Float32)
        {
            if (group.WeightDecay != 0) p.add_(p, alpha: -group.WeightDecay * rate);
            p.sub_(update);
        }
        else
        {
            if (group.WeightDecay != 0) full.add_(full, alpha: -group.WeightDecay * rate);
            p.copy_(full.sub_(update));
        }
    }

    private double Rate(double groupRate, int step, double parameterSize)
    {
        double relative = settings.RelativeStep
            ? Math.Min(settings.WarmupInit ? 1e-6 * step : 1e-2, 1 / Math.Sqrt(step))
            : groupRate;
        return settings.ScaleParameter ? Math.Max(settings.ParameterEpsilon, parameterSize) * relative : relative;
    }

    private Tensor Slot32(NamedParameter parameter, string kind, IReadOnlyList<long> shape)
    {
        var slots = Slots(parameter);
        if (!slots.TryGetValue(kind, out var tensor))
            slots[kind] = tensor = zeros([.. shape], dtype: ScalarType.Float32, device: parameter.Parameter.device).DetachFromDisposeScope();
        return tensor;
    }

    private static Tensor RootMeanSquare(Tensor t) => t.square().mean().sqrt_();

    private static long[] RowShape(Tensor p) => p.shape[..^1];

    private static long[] ColumnShape(Tensor p) => [.. p.shape[..^2], p.shape[^1]];
}
