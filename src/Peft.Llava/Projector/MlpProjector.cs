using System.Globalization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Linear layers with an exact (erf) GELU between them and none after the last. Its children are named 0, 2, 4, …, as in LLaVA.</summary>
public sealed class MlpProjector : nn.Module<Tensor, Tensor>
{
    // A list, so that an adapter can take a layer's place.
    private readonly List<nn.Module<Tensor, Tensor>> _layers;

    /// <summary>Creates the projector.</summary>
    /// <param name="layers">The linear layers, from features to tokens.</param>
    public MlpProjector(IEnumerable<nn.Module<Tensor, Tensor>> layers)
        : base(nameof(MlpProjector))
    {
        ArgumentNullException.ThrowIfNull(layers);
        _layers = [.. layers];
        for (int i = 0; i < _layers.Count; i++) register_module((2 * i).ToString(CultureInfo.InvariantCulture), _layers[i]);
        RegisterComponents();
    }

    /// <summary>Projects features.</summary>
    /// <param name="input">(..., Hv).</param>
    /// <returns>(..., D), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        // The later layers see a matrix, so that libtorch adds the bias before it rounds to bfloat16, as in the reference.
        var x = _layers[0].call(input).flatten(0, -2);
        foreach (var layer in _layers.Skip(1)) x = layer.call(nn.functional.gelu(x));
        return x.view([.. input.shape[..^1], x.shape[1]]).MoveToOuterDisposeScope();
    }
}
