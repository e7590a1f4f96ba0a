using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>An <see cref="ITiedLinear"/> as a storage, so that LoRA can be put on it. It has no parameter of its own.</summary>
internal sealed class TiedLinear(ITiedLinear tied) : FrozenLinear(nameof(TiedLinear))
{
    public override long InFeatures => Weight.shape[1];

    public override long OutFeatures => Weight.shape[0];

    public override ScalarType WeightDtype => Weight.dtype;

    public override Device StorageDevice => Weight.device;

    public override Tensor? BiasTensor => null;

    internal override bool WeightIsTrained => Weight.requires_grad;

    public override long StoredBytes => 0;

    /// <summary>The weight, which is the other module's.</summary>
    public Parameter Weight => tied.Weight;

    public override Tensor Apply(Tensor input) => MatrixProduct.Linear(input, Weight);

    public override Tensor ApplyTransposed(Tensor gradOutput) => MatrixProduct.Multiply(gradOutput, Weight);

    public override IPanelSource? PanelsFor(ScalarType inputDtype, bool transposed)
        => WeightIsTrained ? null : DensePanels.Of(Weight, inputDtype, transposed);

    public override Tensor MaterializeWeight(ScalarType dtype)
    {
        using var noGrad = no_grad();
        return Weight.to(dtype, copy: true).DetachFromDisposeScope();
    }

    public override void OverwriteWeight(Tensor weight)
    {
        RequireShape(weight);
        MappedPages.Overwrite(Weight, weight);
    }

    public override Tensor forward(Tensor input) => WeightIsTrained ? MatrixProduct.Linear(input, Weight) : base.forward(input);
}

/// <summary>A linear layer over the table of another module, wherever that is at the time.</summary>
internal sealed class SharedLinear(Func<Parameter> weight) : nn.Module<Tensor, Tensor>(nameof(SharedLinear)), ITiedLinear
{
    public Parameter Weight => weight();

    public override Tensor forward(Tensor input) => MatrixProduct.Linear(input, Weight);
}
