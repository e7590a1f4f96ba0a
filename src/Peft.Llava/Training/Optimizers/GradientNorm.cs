using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The norm over all gradients, and the factor that brings it down to a bound.</summary>
/// <param name="Norm">The norm before clipping; not finite if a gradient is not.</param>
/// <param name="Factor">What to multiply the gradients with: <c>min(1, max / (norm + 1e-6))</c>, as <c>clip_grad_norm_</c>.</param>
public readonly record struct GradientNorm(double Norm, double Factor)
{
    /// <summary>Measures the gradients of all parameters together, in float32 or wider whatever their dtype.</summary>
    /// <param name="parameters">The parameters; those without a gradient are left out.</param>
    /// <param name="maxNorm">The bound; 0 or infinity for none.</param>
    public static GradientNorm Measure(IEnumerable<NamedParameter> parameters, double maxNorm)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var squares = new SquareSum();
        var others = new List<Tensor>();
        foreach (var parameter in parameters)
        {
            if (parameter.Parameter.grad is not { } gradient) continue;
            if (CpuTensor.IsKernelReady(gradient)) squares.Add(gradient);
            else others.Add((gradient.dtype == ScalarType.Float64 ? gradient : gradient.to(ScalarType.Float32)).square().sum(ScalarType.Float64));
        }
        // One transfer for all tensors that are elsewhere.
        double sum = squares.Compute() + (others.Count == 0 ? 0 : stack(others.Select(o => o.to(others[0].device))).sum().cpu().item<double>());
        double norm = (float)Math.Sqrt(sum);
        double factor = maxNorm is > 0 and < double.PositiveInfinity ? Math.Min(1, maxNorm / (norm + 1e-6)) : 1;
        return new GradientNorm(norm, factor);
    }
}
