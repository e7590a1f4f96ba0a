using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Patches, class token and positions of the CLIP tower.</summary>
public sealed class ClipEmbeddings : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "class_embedding")] private Parameter _class;
    [TorchSharp.Utils.ComponentName(Name = "patch_embedding.weight")] private Parameter _patch;
    [TorchSharp.Utils.ComponentName(Name = "position_embedding.weight")] private Parameter _position;
#pragma warning restore IDE0044, CA1823

    /// <summary>Creates the module; it takes ownership of all tensors.</summary>
    /// <param name="classToken">(Hv).</param>
    /// <param name="patch">(Hv, 3, p, p): the kernel of a convolution without bias.</param>
    /// <param name="position">(P + 1, Hv).</param>
    public ClipEmbeddings(Tensor classToken, Tensor patch, Tensor position)
        : base(nameof(ClipEmbeddings))
    {
        _class = new Parameter(classToken, requires_grad: false);
        _patch = new Parameter(patch, requires_grad: false);
        _position = new Parameter(position, requires_grad: false);
        RegisterComponents();
    }

    /// <summary>The dtype the tower computes in.</summary>
    public ScalarType Dtype => _patch.dtype;

    /// <summary>Embeds images.</summary>
    /// <param name="input">(tiles, 3, S, S), of the tower's dtype.</param>
    /// <returns>(tiles, P + 1, Hv), class token first, in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        long side = _patch.shape[^1], tiles = input.shape[0];
        var patches = input.device_type == DeviceType.CPU && input.dtype == ScalarType.BFloat16 && ProductChoice.For(input.dtype) == ProductEngine.Packed
            ? MatrixProduct.Linear(Patches(input, side), _patch.flatten(1))
            : nn.functional.conv2d(input, _patch, strides: [side, side]).flatten(2).transpose(1, 2);
        var token = _class.expand(tiles, 1, -1);
        return (cat([token, patches], 1) + _position).MoveToOuterDisposeScope();
    }

    /// <summary>(tiles, 3, S, S) as rows of patches, (tiles, P, 3 · side²): the convolution is then a product.</summary>
    private static Tensor Patches(Tensor input, long side)
    {
        long down = input.shape[2] / side, across = input.shape[3] / side;
        return input.narrow(2, 0, down * side).narrow(3, 0, across * side).reshape(input.shape[0], input.shape[1], down, side, across, side)
            .permute(0, 2, 4, 1, 3, 5).reshape(input.shape[0], down * across, -1);
    }
}
