using System.Runtime.CompilerServices;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class BackwardTensorsTests
{
    [Fact]
    public void A_graph_can_be_passed_again_and_the_gradients_add_up()
    {
        using var scope = NewDisposeScope();
        var (y, adapter, gradient) = Layer();
        y.backward([gradient], retain_graph: true);
        var once = adapter.A.grad!.clone();
        y.backward([gradient], retain_graph: true);
        using (BackwardTensors.SinglePass()) y.backward([gradient]);
        Assert.True(once.abs().max().ToSingle() > 0);
        TensorAssert.Equal(once + once + once, adapter.A.grad!, "gradient of A");
    }

    [Fact]
    public void In_a_single_pass_a_layer_frees_what_it_saved_before_the_one_below_it_runs()
    {
        using var scope = NewDisposeScope();
        Assert.False(AliveBelow(single: true));
        Assert.True(AliveBelow(single: false));
        var region = BackwardTensors.SinglePass();
        region.Dispose();
        region.Dispose();       // closes once
        Assert.True(AliveBelow(single: false));
    }

    [Fact]
    public void What_is_given_up_cannot_be_asked_for_again()
    {
        using var scope = NewDisposeScope();
        var error = Assert.Throws<GraphReleasedException>(() => AsksTwice.apply(randn(3, 2)));
        Assert.Contains("has been passed backward already, and what its layers had saved is freed", error.Message, StringComparison.Ordinal);
        Assert.Contains("Run the forward again, or pass it the first time outside of BackwardTensors.SinglePass()", error.Message, StringComparison.Ordinal);
    }

    // Whether the tensor that the upper function saved is alive when the lower one has its turn.
    private static bool AliveBelow(bool single)
    {
        var watch = new Watch();
        var x = randn(5, 7).requires_grad_(true);
        Tensor y;
        using (NewDisposeScope()) y = Keeps.apply(Looks.apply(x, watch), watch).MoveToOuterDisposeScope();
        Assert.True(watch.IsAlive());
        using (single ? BackwardTensors.SinglePass() : null) y.sum().backward();
        Assert.NotNull(x.grad);
        return watch.WhenLooked!.Value;
    }

    private static (Tensor Output, LoraAdapter Adapter, Tensor Gradient) Layer()
    {
        var net = nn.Sequential(("projection", (nn.Module<Tensor, Tensor>)new DenseFrozenLinear(randn(11, 7), randn(11))));
        var peft = net.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 5, TargetModules = TargetModules.Names(["projection"]) });
        TinyNet.Randomise(peft);
        return (net.call(randn(5, 7).requires_grad_(true)), peft.Layers.Single().Adapters["default"], randn(5, 11));
    }

    /// <summary>A managed array that a tensor borrows: it can be collected once no tensor uses it.</summary>
    private sealed class Watch
    {
        private WeakReference? _array;

        public bool? WhenLooked { get; set; }

        [MethodImpl(MethodImplOptions.NoInlining)]
        public Tensor Borrow()
        {
            float[] array = [.. Enumerable.Range(0, 35)];
            _array = new WeakReference(array);
            return frombuffer(array, ScalarType.Float32);
        }

        public bool IsAlive()
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            GC.Collect();
            return _array!.IsAlive;
        }
    }

    private sealed class Keeps : autograd.SingleTensorFunction<Keeps>
    {
        public override string Name => nameof(Keeps);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.save_for_backward([((Watch)vars[1]).Borrow()]);
            return ((Tensor)vars[0]).mul(2f);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var scope = NewDisposeScope();
            BackwardTensors.Saved(ctx);
            return BackwardTensors.Return(grad_output, grad_output.mul(2f), null);
        }
    }

    private sealed class Looks : autograd.SingleTensorFunction<Looks>
    {
        public override string Name => nameof(Looks);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.save_data("watch", vars[1]);
            return ((Tensor)vars[0]).mul(3f);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            var watch = (Watch)ctx.get_data("watch");
            watch.WhenLooked = watch.IsAlive();
            return BackwardTensors.Return(grad_output, grad_output.mul(3f), null);
        }
    }

    private sealed class AsksTwice : autograd.SingleTensorFunction<AsksTwice>
    {
        public override string Name => nameof(AsksTwice);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            using var once = BackwardTensors.SinglePass();
            BackwardTensors.Saved(ctx);
            BackwardTensors.Saved(ctx);
            return (Tensor)vars[0];
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output) => [grad_output];
    }
}
