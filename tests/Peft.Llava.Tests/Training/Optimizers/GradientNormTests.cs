using Peft.Core;
using Peft.Llava;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

public sealed class GradientNormTests
{
    // More than one chunk, no multiple of the lanes, mixed dtypes, one gradient on strides, one in float64, one absent.
    [Fact, Trait("Level", "any")]
    public void The_norm_is_that_of_all_gradients_together()
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(5);
        var parameters = new List<NamedParameter>();
        double sum = 0;
        void Add(Tensor gradient)
        {
            var parameter = new Parameter(zeros_like(gradient));
            parameter.grad = gradient;
            parameters.Add(new NamedParameter($"p{parameters.Count}", parameter));
            sum += gradient.to(ScalarType.Float64).square().sum().item<double>();
        }
        Add(randn([40_003], generator: generator));
        Add(randn([7, 11], generator: generator).to(ScalarType.BFloat16));
        Add(randn([5, 6], generator: generator).t());
        Add(randn([3], generator: generator).to(ScalarType.Float64));
        parameters.Add(new NamedParameter("absent", new Parameter(zeros(3))));
        var norm = GradientNorm.Measure(parameters, 2.5);
        foreach (var width in Enum.GetValues<VectorWidth>())
        {
            using var forced = VectorLoops.ForceWidth(width);
            Assert.Equal(norm, GradientNorm.Measure(parameters, 2.5));
        }
        Assert.Equal(Math.Sqrt(sum), norm.Norm, 1e-6 * Math.Sqrt(sum));
        Assert.Equal(2.5 / (norm.Norm + 1e-6), norm.Factor);
        Assert.Equal(1, GradientNorm.Measure(parameters, 0).Factor);
        Assert.Equal(1, GradientNorm.Measure(parameters, 1e9).Factor);
        Assert.Equal(new GradientNorm(0, 1), GradientNorm.Measure([parameters[^1]], 1));
        using (no_grad()) parameters[0].Parameter.grad!.fill_(double.NaN);
        Assert.True(double.IsNaN(GradientNorm.Measure(parameters, 1).Norm));
    }
}
