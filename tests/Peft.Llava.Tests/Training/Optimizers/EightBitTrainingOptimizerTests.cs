using Peft.Llava;
using Peft.Quantization;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

public sealed class EightBitTrainingOptimizerTests
{
    [Theory]
    [InlineData(OptimizerKind.AdamW8Bit)]
    [InlineData(OptimizerKind.PagedAdamW8Bit)]
    [InlineData(OptimizerKind.Lion8Bit)]
    public void The_trainer_trains_with_it(OptimizerKind kind)
    {
        using var run = new TinyRun();
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 12, Optimizer = kind }, watch);
        trainer.Train();
        Assert.True(watch.Losses[^1] < watch.Losses[0], $"loss went from {watch.Losses[0]} to {watch.Losses[^1]}");
    }

    [Fact]
    public void Its_state_by_name_goes_on_bit_for_bit_with_each_group_s_rate()
    {
        using var scope = NewDisposeScope();
        var (groups, twins) = (Groups(), Groups());
        using var one = Create(groups);
        Train(one, groups, 3, 0);
        var state = one.State;
        Assert.Equal(
            ["absmax1/large", "absmax2/large", "state1/large", "state1/small", "state2/large", "state2/small", "step/large", "step/small"],
            state.Keys.Order(StringComparer.Ordinal));
        using (no_grad())
        {
            for (int i = 0; i < groups.Count; i++) twins[i].Parameters[0].Parameter.copy_(groups[i].Parameters[0].Parameter);
        }
        using var other = Create(twins);
        other.LoadState(state);
        Train(one, groups, 3, 3);
        Train(other, twins, 3, 3);
        for (int i = 0; i < groups.Count; i++) TensorAssert.Equal(groups[i].Parameters[0].Parameter, twins[i].Parameters[0].Parameter, groups[i].Name);
    }

    [Fact]
    public void A_state_of_other_parameters_is_refused()
    {
        using var scope = NewDisposeScope();
        using var optimizer = Create(Groups());
        var e = Assert.Throws<StateMismatchException>(() => optimizer.LoadState(new Dictionary<string, Tensor>
        {
            ["state1/elsewhere"] = zeros(3), ["state1/small"] = zeros(3),
        }));
        Assert.Contains("'state1/elsewhere' belongs to no trained parameter", e.Message, StringComparison.Ordinal);
        Assert.Contains("'step/small' is missing", e.Message, StringComparison.Ordinal);
        Assert.Equal("optimizer state 1: state1 has 3 entries, expected 77. Load the state that was saved with these parameters, or go on without one: the moments then start anew.", Assert.Throws<QuantStateException>(() => optimizer.LoadState(new Dictionary<string, Tensor> { ["state1/small"] = zeros(3), ["step/small"] = tensor([1f]) })).Message);
    }

    private static EightBitTrainingOptimizer Create(IReadOnlyList<ParameterGroup> groups) => new(groups, g => new AdamW8bit(g, 0.83, 0.97, 1e-6));

    private static List<ParameterGroup> Groups()
    {
        Parameter Make(int count) => new(randn([count], generator: new Generator(5)) * 0.3f);
        return
        [
            new ParameterGroup("a", [new NamedParameter("large", Make(5003))], 0.013, 0.27),
            new ParameterGroup("b", [new NamedParameter("small", Make(77))], 0.002, 0),
        ];
    }

    private static void Train(EightBitTrainingOptimizer optimizer, IReadOnlyList<ParameterGroup> groups, int steps, int first)
    {
        for (int step = first; step < first + steps; step++)
        {
            using var scope = NewDisposeScope();
            foreach (var group in groups)
            {
                group.Rate = group.BaseRate * (1 - 0.1 * step);
                var parameter = group.Parameters[0].Parameter;
                parameter.grad = randn(parameter.shape, generator: new Generator((ulong)step));
            }
            optimizer.Step(0.7);
            optimizer.ZeroGrad();
        }
    }

    private sealed class Watch : ITrainingObserver
    {
        public List<double> Losses { get; } = [];

        public TrainingVerdict OnStep(StepReport report)
        {
            Losses.Add(report.Loss);
            return TrainingVerdict.Continue;
        }
    }
}
