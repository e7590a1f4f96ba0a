using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The layers of the CLIP tower.</summary>
public sealed class ClipEncoder : nn.Module
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "layers")] private ModuleList<ClipLayer> _layers;
#pragma warning restore IDE0044, CA1823

    internal ClipEncoder(IEnumerable<ClipLayer> layers)
        : base(nameof(ClipEncoder))
    {
        _layers = new ModuleList<ClipLayer>([.. layers]);
        RegisterComponents();
    }

    /// <summary>Number of layers.</summary>
    public int LayerCount => _layers.Count;

    /// <summary>Runs the first layers.</summary>
    /// <param name="x">(tiles, P + 1, Hv).</param>
    /// <param name="count">How many.</param>
    /// <param name="usedOnce">Whether the mapped pages of each layer's weights are given back after it ran.</param>
    /// <returns>(tiles, P + 1, Hv), in the current dispose scope.</returns>
    internal Tensor Run(Tensor x, int count, bool usedOnce)
    {
        using var scope = NewDisposeScope();
        var state = x.alias();
        for (int i = 0; i < count; i++)
        {
            var next = _layers[i].call(state);
            state.Dispose();
            state = next;
            if (usedOnce) MappedPages.ReleaseUnwritten(_layers[i].parameters());
        }
        return state.MoveToOuterDisposeScope();
    }
}
