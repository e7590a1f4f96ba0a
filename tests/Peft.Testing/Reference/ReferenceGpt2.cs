#pragma warning disable CS1591, IDE0044, CA1051
using System.Text.Json;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>GPT-2, whose linear layers are stored (in, out) and whose head is the token table.</summary>
public sealed class ReferenceGpt2 : ReferenceModel
{
    private readonly Gpt2Stack transformer;
    private readonly nn.Module<Tensor, Tensor> lm_head;

    public ReferenceGpt2(JsonElement config, ReferenceWeights weights)
        : base(nameof(ReferenceGpt2))
    {
        transformer = new Gpt2Stack(config, weights.Below("transformer."));
        lm_head = nn.Linear(transformer.Table);
        RegisterComponents();
    }

    public override string? InputEmbedding => "transformer.wte";

    public override string? OutputHead => "lm_head";

    public override bool TiesEmbeddings => true;

    public override Tensor Run(ReferenceInputs inputs) => lm_head.call(transformer.Run(inputs.InputIds, inputs.AttentionMask));
}

public sealed class Gpt2Stack : nn.Module
{
    private readonly FrozenEmbedding wte;
    private readonly Embedding wpe;
    private readonly ModuleList<Gpt2Block> h;
    private readonly LayerNorm ln_f;

    public Gpt2Stack(JsonElement config, ReferenceWeights weights)
        : base(nameof(Gpt2Stack))
    {
        Table = new Parameter(weights.Take("wte.weight"));
        wte = new FrozenEmbedding(Table);
        wpe = weights.Embedding("wpe");
        double epsilon = config.GetProperty("layer_norm_epsilon").GetDouble();
        h = new ModuleList<Gpt2Block>([.. Enumerable.Range(0, config.GetProperty("n_layer").GetInt32())
            .Select(i => new Gpt2Block(config.GetProperty("n_head").GetInt64(), epsilon, weights.Below($"h.{i}.")))]);
        ln_f = weights.LayerNorm("ln_f", epsilon);
        RegisterComponents();
    }

    public Parameter Table { get; }

    public Tensor Run(Tensor ids, Tensor? attentionMask)
    {
        var x = wte.call(ids) + wpe.call(arange(ids.shape[1], ScalarType.Int64)).unsqueeze(0);
        var mask = LlamaStack.CausalMask(x, attentionMask);
        foreach (var block in h) x = block.call(x, mask);
        return ln_f.call(x);
    }
}

public sealed class Gpt2Block : nn.Module<Tensor, Tensor, Tensor>
{
    private readonly LayerNorm ln_1;
    private readonly Gpt2Attention attn;
    private readonly LayerNorm ln_2;
    private readonly Gpt2Mlp mlp;

    public Gpt2Block(long heads, double epsilon, ReferenceWeights weights)
        : base(nameof(Gpt2Block))
    {
        ln_1 = weights.LayerNorm("ln_1", epsilon);
        attn = new Gpt2Attention(heads, weights.Below("attn."));
        ln_2 = weights.LayerNorm("ln_2", epsilon);
        mlp = new Gpt2Mlp(weights.Below("mlp."));
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Tensor mask)
    {
        x = x + attn.call(ln_1.call(x), mask);
        return x + mlp.call(ln_2.call(x));
    }
}

public sealed class Gpt2Attention : nn.Module<Tensor, Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> c_attn;
    private readonly nn.Module<Tensor, Tensor> c_proj;
    private readonly long _heads;

    public Gpt2Attention(long heads, ReferenceWeights weights)
        : base(nameof(Gpt2Attention))
    {
        _heads = heads;
        c_attn = new TransposedFrozenLinear(weights.Take("c_attn.weight"), weights.Take("c_attn.bias"));
        c_proj = new TransposedFrozenLinear(weights.Take("c_proj.weight"), weights.Take("c_proj.bias"));
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Tensor mask)
    {
        var parts = c_attn.call(x).chunk(3, -1).Select(t => t.view(t.shape[0], t.shape[1], _heads, -1).transpose(1, 2)).ToArray();
        return c_proj.call(LlamaStack.Attend(parts[0], parts[1], parts[2], mask));
    }
}

public sealed class Gpt2Mlp : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> c_fc;
    private readonly nn.Module<Tensor, Tensor> c_proj;

    public Gpt2Mlp(ReferenceWeights weights)
        : base(nameof(Gpt2Mlp))
    {
        c_fc = new TransposedFrozenLinear(weights.Take("c_fc.weight"), weights.Take("c_fc.bias"));
        c_proj = new TransposedFrozenLinear(weights.Take("c_proj.weight"), weights.Take("c_proj.bias"));
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        var hidden = c_fc.call(x);
        var gelu = 0.5 * hidden * (1 + (Math.Sqrt(2 / Math.PI) * (hidden + 0.044715 * hidden.pow(3))).tanh());
        return c_proj.call(gelu);
    }
}
