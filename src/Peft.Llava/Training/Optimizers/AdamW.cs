using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Which of the two AdamW of the Python libraries.</summary>
public enum AdamWForm
{
    /// <summary><c>torch.optim.AdamW</c>: decay before the step (transformers' <c>adamw_torch</c>).</summary>
    Torch,

    /// <summary>The former <c>transformers.AdamW</c> (<c>adamw_hf</c>): eps inside before the bias correction, decay after the step.</summary>
    Transformers,
}

/// <summary>
/// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", algorithm 2), state in the parameter's own dtype as torch keeps it.
/// </summary>
/// <remarks>
/// On the CPU float32 and bfloat16 parameters take one fused pass over memory (<see cref="AdamWKernel"/>); bfloat16 rounds after each of
/// torch's operations, so that it gives the bits of torch's plain loop. Everything else runs the same operations through libtorch.
/// </remarks>
/// <param name="groups">The parameters; they remain the model's.</param>
/// <param name="beta1">Decay of the first moment.</param>
/// <param name="beta2">Decay of the second moment.</param>
/// <param name="epsilon">Added to the root of the second moment.</param>
/// <param name="form">Which library's.</param>
/// <param name="fused">False makes the CPU, too, run operation by operation: the reference that the fused pass is tested against.</param>
public sealed class AdamW(
    IReadOnlyList<ParameterGroup> groups, double beta1 = 0.9, double beta2 = 0.999, double epsilon = 1e-8, AdamWForm form = AdamWForm.Torch, bool fused = true)
    : TrainingOptimizer(groups)
{
    private readonly AdamWKernel _kernel = new();

    /// <inheritdoc/>
    protected override void StepCore(double gradientScale)
    {
        foreach (var group in Groups)
        {
            foreach (var (parameter, gradient) in WithGradient(group))
            {
                int step = CountStep(parameter);
                var first = Slot(parameter, "exp_avg");
                var second = Slot(parameter, "exp_avg_sq");
                var settings = new AdamWSettings(group.Rate, beta1, beta2, epsilon, group.WeightDecay, step, gradientScale);
                if (fused && form == AdamWForm.Torch && AdamWKernel.CanRun(parameter.Parameter, gradient, first, second))
                    _kernel.Add(parameter.Parameter, gradient, first, second, settings);
                else
                    StepByOperations(parameter.Parameter, gradient, first, second, settings);
            }
        }
        _kernel.Run();
    }

    private void StepByOperations(Tensor p, Tensor gradient, Tensor first, Tensor second, AdamWSettings s)
    {
        using var scope = NewDisposeScope();
        if (s.GradientScale != 1) gradient.mul_(s.GradientScale);
        if (gradient.dtype != p.dtype) gradient = gradient.to(p.dtype);
        if (form == AdamWForm.Torch)
        {
            p.mul_(1 - s.Rate * s.WeightDecay);
            first.lerp_(gradient, 1 - s.Beta1);
            second.mul_(s.Beta2).addcmul_(gradient, gradient, 1 - s.Beta2);
            var root = second.sqrt().div_(Math.Sqrt(1 - Math.Pow(s.Beta2, s.Step))).add_(s.Epsilon);
            p.addcdiv_(first, root, -s.Rate / (1 - Math.Pow(s.Beta1, s.Step)));
        }
        else
        {
            first.mul_(s.Beta1).add_(gradient, alpha: 1 - s.Beta1);
            second.mul_(s.Beta2).addcmul_(gradient, gradient, 1 - s.Beta2);
            var root = second.sqrt().add_(s.Epsilon);
            double size = s.Rate * Math.Sqrt(1 - Math.Pow(s.Beta2, s.Step)) / (1 - Math.Pow(s.Beta1, s.Step));
            p.addcdiv_(first, root, -size);
            if (s.WeightDecay > 0) p.add_(p, alpha: -s.Rate * s.WeightDecay);
        }
    }
}

/// <summary>The numbers of one AdamW step of one parameter.</summary>
/// <param name="Rate">Learning rate.</param>
/// <param name="Beta1">Decay of the first moment.</param>
/// <param name="Beta2">Decay of the second moment.</param>
/// <param name="Epsilon">Added to the root.</param>
/// <param name="WeightDecay">Decay of the weight.</param>
/// <param name="Step">The parameter's step, from 1.</param>
/// <param name="GradientScale">Multiplies the gradient first.</param>
public readonly record struct AdamWSettings(
    double Rate, double Beta1, double Beta2, double Epsilon, double WeightDecay, int Step, double GradientScale);
