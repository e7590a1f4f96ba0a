using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The self-attention of one CLIP layer: full, with biases.</summary>
public sealed class ClipAttention : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection; adapters replace the fields' values
    [TorchSharp.Utils.ComponentName(Name = "k_proj")] private nn.Module<Tensor, Tensor> _key;
    [TorchSharp.Utils.ComponentName(Name = "v_proj")] private nn.Module<Tensor, Tensor> _value;
    [TorchSharp.Utils.ComponentName(Name = "q_proj")] private nn.Module<Tensor, Tensor> _query;
    [TorchSharp.Utils.ComponentName(Name = "out_proj")] private nn.Module<Tensor, Tensor> _output;
#pragma warning restore IDE0044, CA1823
    private readonly int _heads;

    internal ClipAttention(
        nn.Module<Tensor, Tensor> query, nn.Module<Tensor, Tensor> key, nn.Module<Tensor, Tensor> value, nn.Module<Tensor, Tensor> output, int heads)
        : base(nameof(ClipAttention))
    {
        _query = query;
        _key = key;
        _value = value;
        _output = output;
        _heads = heads;
        RegisterComponents();
    }

    /// <summary>(tiles, P + 1, Hv) to the same, in the current dispose scope.</summary>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        var mixed = nn.functional.scaled_dot_product_attention(Heads(_query.call(input)), Heads(_key.call(input)), Heads(_value.call(input)));
        return _output.call(mixed.transpose(1, 2).reshape(input.shape)).MoveToOuterDisposeScope();
    }

    private Tensor Heads(Tensor x) => x.view(x.shape[0], x.shape[1], _heads, -1).transpose(1, 2);
}
