using Peft.Core;
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

    /// <summary>Creates the module over its four linear layers, (Hv) to (Hv).</summary>
    /// <param name="query">q_proj.</param>
    /// <param name="key">k_proj.</param>
    /// <param name="value">v_proj.</param>
    /// <param name="output">out_proj.</param>
    /// <param name="heads">Number of heads.</param>
    public ClipAttention(
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

    /// <summary>Mixes the tokens of each tile.</summary>
    /// <param name="input">(tiles, P + 1, Hv).</param>
    /// <returns>(tiles, P + 1, Hv), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        // As the reference does it step by step: its roundings in bfloat16 are part of the features that checkpoints were trained on.
        // Rows go through the linears as a matrix: libtorch then adds the bias before it rounds, not after.
        var rows = input.view(-1, input.shape[2]);
        var q = Heads(TensorMath.Multiply(_query.call(rows), Math.Pow(input.shape[2] / _heads, -0.5)), input);
        var weights = BatchProduct.Multiply(q, Heads(_key.call(rows), input), transposed: true).softmax(-1);
        var mixed = BatchProduct.Multiply(weights, Heads(_value.call(rows), input));
        return _output.call(mixed.transpose(1, 2).reshape(-1, input.shape[2])).view(input.shape).MoveToOuterDisposeScope();
    }

    private Tensor Heads(Tensor rows, Tensor input) => rows.view(input.shape[0], input.shape[1], _heads, -1).transpose(1, 2);
}
