using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class PeftStateTests
{
    [Fact]
    public void LoRA_only_means_the_biases_of_the_adapted_layers()
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["first", "blocks.1"], Bias = LoraBias.LoraOnly });
        Assert.Equal(["base_model.model.first.base_layer.bias", "base_model.model.first.lora_A.default.weight", "base_model.model.first.lora_B.default.weight",
            "base_model.model.blocks.1.lora_A.default.weight", "base_model.model.blocks.1.lora_B.default.weight"], PeftState.GetLoraState(peft.NamedParameters(), LoraBias.LoraOnly).Keys);
        Assert.Equal(["base_model.model.first.base_layer.bias"], PeftState.GetNonLoraTrainables(peft.NamedParameters()).Keys);
        Assert.Equal(5, PeftState.GetLoraState(peft.NamedParameters(), LoraBias.All).Keys.Count(k => k.EndsWith(".bias", StringComparison.Ordinal) && !k.Contains("lora_", StringComparison.Ordinal)) - 1);
    }

    [Fact]
    public void What_comes_out_is_a_copy()
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["first"] });
        var state = PeftState.GetLoraState(peft.NamedParameters(), LoraBias.None);
        var before = state.Values.First().clone();
        using (no_grad())
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(1);
        TensorAssert.Equal(before, state.Values.First(), "state");
        Assert.All(state.Values, t => Assert.False(t.requires_grad));
    }

    [Fact]
    public void Sharded_parameters_are_gathered()
    {
        using var scope = NewDisposeScope();
        var full = arange(0, 14, 1, ScalarType.Float32).view(2, 7);
        var ranks = Enumerable.Range(0, 3).Select(r => new FakeGroup(r, 3)).ToList();
        var shapes = new Dictionary<string, long[]> { ["w"] = [2, 7] };
        var slices = ranks.Select(r => new Parameter(new FlatShards(r, shapes).SliceOf(full), requires_grad: true)).ToList();
        Assert.All(slices, s => Assert.Equal(5, s.numel()));
        foreach (var rank in ranks) rank.Others = slices;
        var state = PeftState.GetNonLoraTrainables([("w", slices[1]), ("whole", new Parameter(ones(3)))], gatherer: new FlatShards(ranks[1], shapes));
        TensorAssert.Equal(full, state["w"], "gathered");
        TensorAssert.Equal(ones(3), state["whole"], "whole");
        Assert.Equal("w: expected shape (5), got (4). Check that the tensor belongs to this layer of this model.",
            Assert.Throws<ShapeMismatchException>(() => new FlatShards(ranks[0], shapes).Gather("w", new Parameter(ones(4)))).Message);
    }

    [Fact]
    public void One_process_alone_gives_back_what_it_got()
    {
        using var scope = NewDisposeScope();
        var group = SingleProcess.Instance;
        var x = randn(3);
        Assert.Equal((0, 1), (group.Rank, group.WorldSize));
        TensorAssert.Equal(x, Assert.Single(group.AllGather(x)), "all-gather");
        TensorAssert.Equal(x, group.ReduceScatterSum([x]), "reduce-scatter");
        var y = x.clone();
        group.AllReduceSum(y);
        group.Broadcast(y, 0);
        group.Barrier();
        TensorAssert.Equal(x, y, "all-reduce");
        Assert.StartsWith("source ('1') must be equal to '0'.", Assert.Throws<ArgumentOutOfRangeException>(() => group.Broadcast(y, 1)).Message);
        Assert.StartsWith("tensors ('2') must be equal to '1'.", Assert.Throws<ArgumentOutOfRangeException>(() => group.ReduceScatterSum([x, x])).Message);
    }

    private sealed class FakeGroup(int rank, int size) : IProcessGroup
    {
        public IReadOnlyList<Tensor> Others { get; set; } = [];

        public int Rank => rank;

        public int WorldSize => size;

        public void AllReduceSum(Tensor tensor) => throw new NotSupportedException();

        public IReadOnlyList<Tensor> AllGather(Tensor tensor) => [.. Others.Select(t => t.detach().clone().DetachFromDisposeScope())];

        public void Broadcast(Tensor tensor, int source) => throw new NotSupportedException();

        public Tensor ReduceScatterSum(IReadOnlyList<Tensor> tensors) => throw new NotSupportedException();

        public void Barrier() => throw new NotSupportedException();
    }
}
