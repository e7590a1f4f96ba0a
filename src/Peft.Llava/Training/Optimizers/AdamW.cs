using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Which of the two AdamW of the Python libraries.</summary>
public enum AdamWForm
{
    /// <summary><c>torch.optim.AdamW</c>: decay before the step (transformers' <c>adamw_torch</c>).</summary>
    Torch,

    /// <summary>The former <c>transformers.AdamW</c> (<c>adamw_hf</c>): eps added before the bias correction, decay after the step.</summary>
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
        // Each of torch's operations computes in float32 and rounds to the parameter's dtype. Written out: some releases of libtorch round
        // an operator's scalar to bfloat16 first. For float32 both conversions are nothing.
        Tensor Wide(Tensor t) => t.dtype is ScalarType.BFloat16 or ScalarType.Float16 ? t.to(ScalarType.Float32) : t;
        Tensor Round(Tensor wide) => p.dtype is ScalarType.BFloat16 or ScalarType.Float16 ? wide.to(p.dtype).to(ScalarType.Float32) : wide;

        // Only torch's add does not: it rounds its factor, and for some elements the product, so it is left to libtorch.
        Tensor AddScaled(Tensor a, Tensor b, double factor) => Wide(a.to(p.dtype).add(b.to(p.dtype), alpha: factor));

        // It rounds the number it adds, too, which mul, div and addcmul do not.
        double eps = s.RoundedEpsilon(p.dtype);

        var g = Round(Wide(gradient) * s.GradientScale);
        var weight = Wide(p);
        var second2 = Round(Round(Wide(second) * s.Beta2).addcmul(g, g, 1 - s.Beta2));
        double correction1 = 1 - Math.Pow(s.Beta1, s.Step), correction2 = Math.Sqrt(1 - Math.Pow(s.Beta2, s.Step));
        Tensor first2;
        if (form == AdamWForm.Torch)
        {
            weight = Round(weight * (1 - s.Rate * s.WeightDecay));
            first2 = Round(Wide(first).lerp(g, 1 - s.Beta1));
            var root = Round(Round(Round(second2.sqrt()) / correction2) + eps);
            weight = Round(weight.addcdiv(first2, root, -s.Rate / correction1));
        }
        else
        {
            first2 = AddScaled(Wide(first) * s.Beta1, g, 1 - s.Beta1);
            weight = Round(weight.addcdiv(first2, Round(Round(second2.sqrt()) + eps), -s.Rate * correction2 / correction1));
            if (s.WeightDecay > 0) weight = AddScaled(weight, weight, -s.Rate * s.WeightDecay);
        }
        first.copy_(first2);
        second.copy_(second2);
        p.copy_(weight);
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
    double Rate, double Beta1, double Beta2, double Epsilon, double WeightDecay, int Step, double GradientScale)
{
    /// <summary>Epsilon as torch's <c>add_</c> uses it: rounded to the dtype of what it is added to.</summary>
    internal double RoundedEpsilon(ScalarType dtype)
    {
        if (dtype is not (ScalarType.BFloat16 or ScalarType.Float16)) return Epsilon;
        using var scope = NewDisposeScope();
        return tensor(Epsilon, ScalarType.Float32).to(dtype).to(ScalarType.Float32).item<float>();
    }
}
