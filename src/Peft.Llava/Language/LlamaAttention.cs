using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The self-attention of one decoder layer.</summary>
public sealed class LlamaAttention : nn.Module
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection; adapters replace the fields' values
    [TorchSharp.Utils.ComponentName(Name = "q_proj")] private nn.Module<Tensor, Tensor> _query;
    [TorchSharp.Utils.ComponentName(Name = "k_proj")] private nn.Module<Tensor, Tensor> _key;
    [TorchSharp.Utils.ComponentName(Name = "v_proj")] private nn.Module<Tensor, Tensor> _value;
    [TorchSharp.Utils.ComponentName(Name = "o_proj")] private nn.Module<Tensor, Tensor> _output;
#pragma warning restore IDE0044, CA1823
    private readonly int _layer;

    internal LlamaAttention(
        nn.Module<Tensor, Tensor> query, nn.Module<Tensor, Tensor> key, nn.Module<Tensor, Tensor> value, nn.Module<Tensor, Tensor> output,
        int layer)
        : base(nameof(LlamaAttention))
    {
        _query = query;
        _key = key;
        _value = value;
        _output = output;
        _layer = layer;
        RegisterComponents();
    }

    /// <summary>(N, D) to (N, D), in the current dispose scope.</summary>
    internal Tensor Forward(Tensor x, DecoderContext context)
    {
        using var scope = NewDisposeScope();
        var (q, k, v) = (_query.call(x), _key.call(x), _value.call(x));
        var attended = context.Cache is { } cache ? cache.Attend(_layer, q, k, v, context)
            : KernelChoice.Fuses(x.shape[0]) ? RotaryAttention.Apply(q, k, v, context.Rope, context.Layout)
            : RotaryAttention.Reference(q, k, v, context.Rope, context.Layout);
        // Its result is put in place from the layer's first run.
        using var region = GradientCheckpoint.RunsAgain ? BackwardOnly.Begin() : null;
        return _output.call(attended).MoveToOuterDisposeScope();
    }
}
