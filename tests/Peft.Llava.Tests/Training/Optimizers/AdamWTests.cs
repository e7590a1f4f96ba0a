using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

public sealed class AdamWTests
{
    // With an eps that bfloat16 has not, and moments so small that it counts.
    [Theory, Trait("Fault", "trainer-1"), Trait("Level", "any")]
    [InlineData(AdamWForm.Torch, true), InlineData(AdamWForm.Torch, false), InlineData(AdamWForm.Transformers, false)]
    public void In_bfloat16_epsilon_is_rounded_before_it_is_added_as_torch_does(AdamWForm form, bool fused)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(19);
        const double Rate = 0.1, Decay = 0.05, Beta1 = 0.9, Beta2 = 0.99, Epsilon = 0.01;
        var p = new NamedParameter("p", new Parameter(randn([1003], generator: generator).to(ScalarType.BFloat16)));
        var gradient = randn([1003], generator: generator).mul(0.02).to(ScalarType.BFloat16);
        Tensor Round(Tensor wide) => wide.to(ScalarType.BFloat16).to(ScalarType.Float32);
        var (weight, g) = (p.Parameter.detach().to(ScalarType.Float32), gradient.to(ScalarType.Float32));
        var second = Round(zeros_like(g).addcmul(g, g, 1 - Beta2));
        double correction1 = 1 - Beta1, correction2 = Math.Sqrt(1 - Beta2);
        // The sum by libtorch's own operator.
        Tensor AddEpsilon(Tensor root) => root.to(ScalarType.BFloat16).add_(Epsilon).to(ScalarType.Float32);
        Tensor expected;
        if (form == AdamWForm.Torch)
        {
            weight = Round(weight * (1 - Rate * Decay));
            var first = Round(zeros_like(g).lerp(g, 1 - Beta1));
            expected = weight.addcdiv(first, AddEpsilon(Round(Round(second.sqrt()) / correction2)), -Rate / correction1).to(ScalarType.BFloat16);
        }
        else
        {
            var first = zeros_like(gradient).add(gradient, alpha: 1 - Beta1).to(ScalarType.Float32);
            weight = Round(weight.addcdiv(first, AddEpsilon(Round(second.sqrt())), -Rate * correction2 / correction1));
            expected = weight.to(ScalarType.BFloat16).add(weight.to(ScalarType.BFloat16), alpha: -Rate * Decay);
        }
        p.Parameter.grad = gradient;
        using var optimizer = new AdamW([new ParameterGroup("g", [p], Rate, Decay)], Beta1, Beta2, Epsilon, form, fused);
        optimizer.Step();
        TensorAssert.Equal(expected, p.Parameter, "parameter");
    }

    [Theory, Trait("Level", "any")]
    [InlineData(ScalarType.Float32), InlineData(ScalarType.BFloat16)]
    public void Every_width_gives_the_same_bits_NaN_and_infinity_included(ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        List<Tensor>? expected = null;
        foreach (var width in Enum.GetValues<VectorWidth>())
        {
            using var forced = VectorLoops.ForceWidth(width);
            var parameters = Make(dtype);
            using var optimizer = new AdamW([new ParameterGroup("g", parameters, 0.013, 0.27)], 0.83, 0.97, 1e-4);
            var bits = new List<Tensor>();
            foreach (double scale in new[] { 1, 0.37, double.NaN })
            {
                using var generator = new Generator(3);
                foreach (var p in parameters)
                {
                    var gradient = randn(p.Parameter.shape, generator: generator).to(dtype);
                    gradient.flatten()[3] = double.PositiveInfinity;
                    gradient.flatten()[7] = double.NaN;
                    p.Parameter.grad = gradient;
                }
                optimizer.Step(scale);
                if (double.IsNaN(scale)) Assert.True(parameters.TrueForAll(p => p.Parameter.isnan().all().ToBoolean()));
                else Assert.Equal(2, parameters[0].Parameter.isnan().sum().ToInt64());
                bits.AddRange(parameters.Select(p => p.Parameter.detach().clone()).Concat(optimizer.State.OrderBy(e => e.Key, StringComparer.Ordinal).Select(e => e.Value.clone())).Select(Bits));
            }
            expected ??= bits;
            for (int i = 0; i < bits.Count; i++) TensorAssert.Equal(expected[i], bits[i], $"{width} tensor {i}");
        }
    }

    private static Tensor Bits(Tensor t) => tensor(t.contiguous().bytes.ToArray());

    // 100,003 elements: more than one chunk, and not a multiple of the vector width.
    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void The_fused_pass_equals_the_operations_one_by_one(ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var (fusedParameters, plainParameters) = (Make(dtype), Make(dtype));
        using var fused = new AdamW([new ParameterGroup("g", fusedParameters, 0.013, 0.27)], 0.83, 0.97, 1e-4);
        using var plain = new AdamW([new ParameterGroup("g", plainParameters, 0.013, 0.27)], 0.83, 0.97, 1e-4, fused: false);
        for (int step = 0; step < 4; step++)
        {
            for (int i = 0; i < fusedParameters.Count; i++)
            {
                var gradient = randn_like(fusedParameters[i].Parameter.detach());
                fusedParameters[i].Parameter.grad = gradient.clone();
                plainParameters[i].Parameter.grad = gradient.clone();
            }
            fused.Step(0.37);
            plain.Step(0.37);
        }
        double limit = dtype == ScalarType.BFloat16 ? Math.Pow(2, -7) : 1e-6;
        for (int i = 0; i < fusedParameters.Count; i++)
        {
            TensorAssert.RelativeRms(plainParameters[i].Parameter, fusedParameters[i].Parameter, limit, "parameter");
            foreach (string kind in new[] { "exp_avg", "exp_avg_sq" })
                TensorAssert.RelativeRms(plain.State[$"{kind}/p{i}"], fused.State[$"{kind}/p{i}"], limit, kind);
        }
    }

    [Fact]
    public void Steps_leave_no_tensors_and_a_parameter_without_gradient_alone()
    {
        using var scope = NewDisposeScope();
        var parameters = Make(ScalarType.Float32);
        using var optimizer = new AdamW([new ParameterGroup("g", parameters, 0.1, 0.2)]);
        using var before = parameters[1].Parameter.detach().clone();
        LeakGuard.AssertFlat(5, () =>
        {
            using var round = NewDisposeScope();
            parameters[0].Parameter.grad = ones_like(parameters[0].Parameter.detach());
            optimizer.Step();
            optimizer.ZeroGrad();
        });
        Assert.Null(parameters[0].Parameter.grad);
        TensorAssert.Equal(before, parameters[1].Parameter, "without gradient");
        Assert.Equal(["exp_avg/p0", "exp_avg_sq/p0", "step/p0"], optimizer.State.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(6f, optimizer.State["step/p0"].item<float>());
    }

    [Fact]
    public void A_loaded_state_continues_bit_for_bit()
    {
        using var scope = NewDisposeScope();
        var one = Make(ScalarType.Float32);
        using var first = new AdamW([new ParameterGroup("g", one, 0.1, 0.2)]);
        void Gradients(List<NamedParameter> to, int seed)
        {
            using var generator = new Generator(7ul + (ulong)seed);
            foreach (var p in to) p.Parameter.grad = randn(p.Parameter.shape, generator: generator);
        }
        Gradients(one, 1);
        first.Step();
        var two = one.Select(p => new NamedParameter(p.Name, new Parameter(p.Parameter.detach().clone()))).ToList();
        using var second = new AdamW([new ParameterGroup("g", two, 0.1, 0.2)]);
        second.LoadState(first.State);
        Gradients(one, 2);
        Gradients(two, 2);
        first.Step();
        second.Step();
        for (int i = 0; i < one.Count; i++) TensorAssert.Equal(one[i].Parameter, two[i].Parameter, one[i].Name);
    }

    [Fact]
    public void State_that_does_not_fit_is_refused_and_changes_nothing()
    {
        using var scope = NewDisposeScope();
        var parameters = Make(ScalarType.Float32);
        using var optimizer = new AdamW([new ParameterGroup("g", parameters, 0.1, 0.2)]);
        var e = Assert.Throws<StateMismatchException>(() => optimizer.LoadState(new Dictionary<string, Tensor>
        {
            ["exp_avg/other"] = zeros(3),
            ["exp_avg/p1"] = zeros(2, 2),
        }));
        Assert.Equal("The optimizer's state does not fit this training (2 problems): 'exp_avg/other' belongs to no trained parameter; "
            + "'exp_avg/p1' has shape (2, 2), the parameter (3, 5). Resume with the model and the options it was saved with.", e.Message);
        Assert.Empty(optimizer.State);
    }

    private static List<NamedParameter> Make(ScalarType dtype)
    {
        using var generator = new Generator(11);
        return [.. new long[][] { [100_003], [3, 5] }.Select((shape, i) =>
            new NamedParameter($"p{i}", new Parameter(randn(shape, generator: generator).to(dtype))))];
    }
}
