using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>One decoder layer: x + attention(norm(x)), then x + mlp(norm(x)).</summary>
public sealed class LlamaLayer : nn.Module
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "self_attn")] private LlamaAttention _attention;
    [TorchSharp.Utils.ComponentName(Name = "mlp")] private nn.Module<Tensor, Tensor> _mlp;
    [TorchSharp.Utils.ComponentName(Name = "input_layernorm")] private nn.Module<Tensor, Tensor> _inputNorm;
    [TorchSharp.Utils.ComponentName(Name = "post_attention_layernorm")] private nn.Module<Tensor, Tensor> _mlpNorm;
#pragma warning restore IDE0044, CA1823

    internal LlamaLayer(
        LlamaAttention attention, nn.Module<Tensor, Tensor> mlp, nn.Module<Tensor, Tensor> inputNorm, nn.Module<Tensor, Tensor> mlpNorm)
        : base(nameof(LlamaLayer))
    {
        _attention = attention;
        _mlp = mlp;
        _inputNorm = inputNorm;
        _mlpNorm = mlpNorm;
        RegisterComponents();
    }

    /// <summary>(N, D) to (N, D), in the current dispose scope.</summary>
    internal Tensor Forward(Tensor x, DecoderContext context)
    {
        using var scope = NewDisposeScope();
        // A float32 norm (QLoRA) gives float32; the linears compute in the dtype of the stream, as under autocast.
        var h = TensorMath.Add(x, _attention.Forward(_inputNorm.call(x).to(x.dtype), context));
        context.Replay?.AfterAttention(h);
        return TensorMath.Add(h, _mlp.call(_mlpNorm.call(h).to(x.dtype))).MoveToOuterDisposeScope();
    }
}
