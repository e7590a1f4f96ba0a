using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>A layer that runs again for its backward leaves out the product with its weight, and gives the same gradients.</summary>
public sealed class BackwardOnlyTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]       // DoRA's own gradient needs the base's output: nothing is left out
    public void Gradients_are_the_same_and_the_product_is_left_out_where_they_do_not_need_it(bool dora)
    {
        using var scope = NewDisposeScope();
        var storage = new Counting(new DenseFrozenLinear(randn(11, 7), randn(11)));
        using var net = nn.Sequential(("projection", (nn.Module<Tensor, Tensor>)storage));
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 5, UseDora = dora, TargetModules = TargetModules.Names(["projection"]) });
        TinyNet.Randomise(peft);
        var adapter = peft.Layers.Single().Adapters["default"];
        var gradient = randn(5, 11);

        var first = Run(again: false);
        int before = storage.Products;
        var second = Run(again: true);

        Assert.Equal(dora, storage.Products > before);
        Assert.Equal(3, first.Count);
        foreach (var (one, two) in first.Zip(second)) TensorAssert.Equal(one, two, "gradient");
        before = storage.Products;
        var region = BackwardOnly.Begin();
        region.Dispose();
        region.Dispose();
        Run(again: false);
        Assert.True(storage.Products > before, "the region is still open");

        List<Tensor> Run(bool again)
        {
            adapter.A.grad = null;
            adapter.B.grad = null;
            var x = arange(35f).view(5, 7).mul(0.1f).requires_grad_(true);
            Tensor y;
            using (again ? BackwardOnly.Begin() : null) y = net.call(x);
            Assert.Equal([5, 11], y.shape);
            y.backward([gradient]);
            return [x.grad!.clone(), adapter.A.grad!.clone(), adapter.B.grad!.clone()];
        }
    }

    /// <summary>A dense weight that counts its forward products.</summary>
    private sealed class Counting(DenseFrozenLinear inner) : FrozenLinear(nameof(Counting))
    {
        public int Products { get; private set; }

        public override long InFeatures => inner.InFeatures;

        public override long OutFeatures => inner.OutFeatures;

        public override ScalarType WeightDtype => inner.WeightDtype;

        public override Device StorageDevice => inner.StorageDevice;

        public override Tensor? BiasTensor => inner.BiasTensor;

        public override long StoredBytes => inner.StoredBytes;

        public override Tensor Apply(Tensor input)
        {
            Products++;
            return inner.Apply(input);
        }

        public override Tensor ApplyTransposed(Tensor gradOutput) => inner.ApplyTransposed(gradOutput);

        public override Tensor MaterializeWeight(ScalarType dtype) => inner.MaterializeWeight(dtype);

        public override void OverwriteWeight(Tensor weight) => inner.OverwriteWeight(weight);

        public override IReadOnlyList<Tensor> CopyStorage() => inner.CopyStorage();

        public override void RestoreStorage(IReadOnlyList<Tensor> copy) => inner.RestoreStorage(copy);

        protected override void Dispose(bool disposing)
        {
            if (disposing) inner.Dispose();
            base.Dispose(disposing);
        }
    }
}
