using Peft.Core;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests.Distributed;

public sealed class InProcessGroupTests
{
    private static Tensor Own(IProcessGroup group, params float[] values) => tensor(values.Select(v => v * (group.Rank + 1)).ToArray());

    [Fact]
    public void All_operations_give_what_their_names_say()
    {
        var results = InProcessGroup.Run(3, group =>
        {
            using var scope = NewDisposeScope();
            Assert.Equal(3, group.WorldSize);
            var sum = Own(group, 1, -2, 0.5f);
            group.AllReduceSum(sum);
            Assert.Equal([6, -12, 3], sum.data<float>().ToArray());

            var own = Own(group, 7, 8);
            var all = group.AllGather(own);
            Assert.Equal([7, 8, 14, 16, 21, 24], all.SelectMany(t => t.data<float>().ToArray()));
            foreach (var t in all) t.Dispose();
            Assert.Equal([7f * (group.Rank + 1), 8f * (group.Rank + 1)], own.data<float>().ToArray());

            group.Broadcast(own, 2);
            Assert.Equal([21, 24], own.data<float>().ToArray());

            using var slice = group.ReduceScatterSum([Own(group, 1), Own(group, 10), Own(group, 100)]);
            Assert.Equal([6 * MathF.Pow(10, group.Rank)], slice.data<float>().ToArray());
            group.Barrier();
            return group.Rank;
        });
        Assert.Equal([0, 1, 2], results);
    }

    [Fact]
    public void Sums_have_the_same_bits_everywhere()
    {
        var sums = InProcessGroup.Run(3, group =>
        {
            using var value = tensor([group.Rank switch { 0 => 1e8f, 1 => 1f, _ => -1e8f }]);
            group.AllReduceSum(value);
            return value.item<float>();
        });
        // In the order of ranks: 1e8 + 1 rounds to 1e8.
        Assert.Equal([0, 0, 0], sums);
    }

    [Fact]
    public void A_member_that_fails_ends_the_others_and_its_exception_comes_out()
    {
        string? heard = null;
        var e = Assert.Throws<TimeZoneNotFoundException>(() => InProcessGroup.Run(2, group =>
        {
            if (group.Rank == 1) throw new TimeZoneNotFoundException("the cause");
            try
            {
                group.Barrier();
            }
            catch (ProcessGroupException x)
            {
                heard = x.Message;
                Assert.Equal(0, x.Rank);
                throw;
            }
            return 0;
        }));
        Assert.Equal("the cause", e.Message);
        Assert.Equal("Process 0 cannot go on with a barrier: another process of its group has failed. Look at that process's exception, and start all of them again.", heard);
    }

    [Fact]
    public void Torchs_generator_is_as_it_was_and_no_tensor_stays()
    {
        using var before = get_rng_state();
        InProcessGroup.Run(2, group =>
        {
            manual_seed(group.Rank + 5);
            return 0;
        });
        using var after = get_rng_state();
        TensorAssert.Equal(before, after, "torch's generator");
        LeakGuard.AssertFlat(5, () => InProcessGroup.Run(1, group =>
        {
            using var value = tensor([1f]);
            group.AllReduceSum(value);
            return 0;
        }));
    }

    public static TheoryData<Action<IProcessGroup>, Action<IProcessGroup>, string> Different() => new()
    {
        { g => Sum(g, 2, 3), g => g.Barrier(), "process 1 calls a barrier where process 0 calls a sum of (2, 3) Float32" },
        // These would be broadcast.
        { g => Sum(g, 2, 3), g => Sum(g, 1, 3), "process 1 calls a sum of (1, 3) Float32 where process 0 calls a sum of (2, 3) Float32" },
        { g => Broadcast(g, 0, ScalarType.Float32), g => Broadcast(g, 0, ScalarType.Float64), "process 1 calls a broadcast from 0 of (5) Float64 where process 0 calls a broadcast from 0 of (5) Float32" },
        { g => Broadcast(g, 0, ScalarType.Float32), g => Broadcast(g, 1, ScalarType.Float32), "process 1 calls a broadcast from 1 of (5) Float32 where process 0 calls a broadcast from 0 of (5) Float32" },
        { g => Slices(g, 2, 3), g => Slices(g, 2, 1), "process 1 calls a sum of slices of (2) Float32 and (1) Float32 where process 0 calls a sum of slices of (2) Float32 and (3) Float32" },
    };

    [Theory, MemberData(nameof(Different), DisableDiscoveryEnumeration = true)]
    public void Members_that_do_not_do_the_same_are_told_so(Action<IProcessGroup> first, Action<IProcessGroup> second, string text)
    {
        var heard = new string[2];
        var e = Assert.Throws<ProcessGroupException>(() => InProcessGroup.Run<int>(2, group =>
        {
            var own = Assert.Throws<ProcessGroupException>(() => (group.Rank == 0 ? first : second)(group));
            Assert.Equal(group.Rank, own.Rank);
            heard[group.Rank] = own.Message;
            throw own;
        }));
        Assert.Equal($"The processes of a group do not do the same: {text}. Every process has to call the same operations in the same order, with tensors of the same shapes and dtypes.", e.Message);
        Assert.All(heard, h => Assert.Equal(e.Message, h));
    }

    private static void Sum(IProcessGroup group, params long[] shape)
    {
        using var value = ones(shape);
        group.AllReduceSum(value);
    }

    private static void Broadcast(IProcessGroup group, int source, ScalarType dtype)
    {
        using var value = ones([5], dtype);
        group.Broadcast(value, source);
    }

    private static void Slices(IProcessGroup group, params long[] lengths)
    {
        var slices = lengths.Select(l => ones(l)).ToList();
        group.ReduceScatterSum(slices).Dispose();
        slices.ForEach(s => s.Dispose());
    }

    [Fact]
    public void Arguments_that_cannot_be_are_refused()
    {
        Assert.StartsWith("size ('0') must be a non-negative and non-zero value.", Assert.Throws<ArgumentOutOfRangeException>(() => InProcessGroup.Run(0, _ => 0)).Message);
        Assert.StartsWith("source ('1') must be less than '1'.", Assert.Throws<ArgumentOutOfRangeException>(() => InProcessGroup.Run(1, g =>
        {
            using var value = tensor([1f]);
            g.Broadcast(value, 1);
            return 0;
        })).Message);
        Assert.StartsWith("tensors ('0') must be equal to '1'.", Assert.Throws<ArgumentOutOfRangeException>(() => InProcessGroup.Run(1, g => g.ReduceScatterSum([]))).Message);
    }
}
