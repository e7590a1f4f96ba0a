using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The norm over all gradients, and the factor that brings it down to a bound.</summary>
/// <param name="Norm">The norm before clipping; not finite if a gradient is not.</param>
/// <param name="Factor">What to multiply the gradients with: <c>min(1, max / (norm + 1e-6))</c>, as <c>clip_grad_norm_</c>.</param>
public readonly record struct GradientNorm(double Norm, double Factor)
{
    /// <summary>Measures the gradients of all parameters together, in float32 whatever their dtype.</summary>
    /// <param name="parameters">The parameters; those without a gradient are left out.</param>
    /// <param name="maxNorm">The bound; 0 or infinity for none.</param>
    public static GradientNorm Measure(IEnumerable<NamedParameter> parameters, double maxNorm)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var norms = new List<Tensor>();
        foreach (var parameter in parameters)
        {
            if (parameter.Parameter.grad is not { } gradient) continue;
            var flat = gradient.flatten();
            norms.Add((flat.dtype is ScalarType.Float32 or ScalarType.Float64 ? flat : flat.to(ScalarType.Float32)).norm().cpu());
        }
        if (norms.Count == 0) return new GradientNorm(0, 1);
        double norm = stack(norms).norm().to(ScalarType.Float32).item<float>();
        double factor = maxNorm is > 0 and < double.PositiveInfinity ? Math.Min(1, maxNorm / (norm + 1e-6)) : 1;
        return new GradientNorm(norm, factor);
    }
}
