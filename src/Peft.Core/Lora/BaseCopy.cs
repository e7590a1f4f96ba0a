using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A copy of a layer's base weight and bias, to be put back bit for bit.</summary>
internal sealed class BaseCopy : IDisposable
{
    private readonly LoraLayer _layer;
    private readonly IReadOnlyList<Tensor> _weight;
    private readonly Tensor? _bias;

    public BaseCopy(LoraLayer layer)
    {
        using var noGrad = no_grad();
        _layer = layer;
        _weight = (layer as LoraLinear)?.BaseLayer.CopyStorage() ?? [layer.BaseWeight(layer.BaseDtype)];
        _bias = layer.BaseBias?.clone().DetachFromDisposeScope();
    }

    /// <summary>The layer's parameters and what they held; a packed weight, which is no parameter, is left out.</summary>
    public IEnumerable<(Parameter Parameter, Tensor Content)> Contents()
    {
        foreach (var (name, parameter) in _layer.BaseParameters())
        {
            if (name == "base_layer.weight" && _weight.Count == 1) yield return (parameter, _weight[0]);
            else if (name == "base_layer.bias" && _bias is not null) yield return (parameter, _bias);
        }
    }

    public void Restore()
    {
        using var noGrad = no_grad();
        if (_layer is LoraLinear linear) linear.BaseLayer.RestoreStorage(_weight);
        else _layer.OverwriteBase(_weight[0]);
        if (_bias is not null) _layer.BaseBias!.copy_(_bias);
    }

    public void Dispose()
    {
        foreach (var tensor in _weight) tensor.Dispose();
        _bias?.Dispose();
    }
}
