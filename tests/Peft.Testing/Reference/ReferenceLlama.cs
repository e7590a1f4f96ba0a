#pragma warning disable CS1591, IDE0044, CA1051
using System.Text.Json;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>LLaMA with a head, as a user of TorchSharp would write it.</summary>
public sealed class ReferenceLlama : ReferenceModel
{
    private readonly LlamaStack model;
    private readonly nn.Module<Tensor, Tensor> lm_head;

    public ReferenceLlama(JsonElement config, ReferenceWeights weights)
        : base(nameof(ReferenceLlama))
    {
        TiesEmbeddings = config.GetProperty("tie_word_embeddings").GetBoolean();
        model = new LlamaStack(config, weights.Below("model."), TiesEmbeddings);
        lm_head = TiesEmbeddings ? nn.Linear(model.Table) : weights.Linear("lm_head");
        RegisterComponents();
    }

    public override string? InputEmbedding => "model.embed_tokens";

    public override string? OutputHead => "lm_head";

    public override bool TiesEmbeddings { get; }

    public override Tensor Run(ReferenceInputs inputs)
        => lm_head.call(model.Run(model.Embed(inputs.InputIds), inputs.AttentionMask));
}

/// <summary>The decoder without its head.</summary>
public sealed class LlamaStack : nn.Module
{
    private readonly nn.Module<Tensor, Tensor> embed_tokens;
    private readonly ModuleList<nn.Module<Tensor, Tensor, Tensor, Tensor>> layers;
    private readonly ReferenceRmsNorm norm;
    private readonly long _headDim;
    private readonly double _theta;

    public LlamaStack(JsonElement config, ReferenceWeights weights, bool shared)
        : base(nameof(LlamaStack))
    {
        long hidden = config.GetProperty("hidden_size").GetInt64(), heads = config.GetProperty("num_attention_heads").GetInt64();
        _headDim = config.TryGetProperty("head_dim", out var d) && d.ValueKind == JsonValueKind.Number ? d.GetInt64() : hidden / heads;
        _theta = config.GetProperty("rope_parameters").GetProperty("rope_theta").GetDouble();
        double epsilon = config.GetProperty("rms_norm_eps").GetDouble();
        Table = shared ? new Parameter(weights.Take("embed_tokens.weight")) : null!;
        embed_tokens = shared ? new FrozenEmbedding(Table) : weights.Embedding("embed_tokens");
        layers = new ModuleList<nn.Module<Tensor, Tensor, Tensor, Tensor>>(
            [.. Enumerable.Range(0, config.GetProperty("num_hidden_layers").GetInt32())
                .Select(i => new ReferenceLlamaLayer(_headDim, epsilon, weights.Below($"layers.{i}.")))]);
        norm = new ReferenceRmsNorm(weights.Take("norm.weight"), epsilon);
        RegisterComponents();
    }

    /// <summary>The table, where the head shares it.</summary>
    public Parameter Table { get; }

    public Tensor Embed(Tensor ids) => embed_tokens.call(ids);

    public Tensor Run(Tensor x, Tensor? attentionMask)
    {
        long length = x.shape[1];
        var frequencies = pow(tensor(_theta, ScalarType.Float32), arange(0, _headDim, 2, ScalarType.Int64).to(ScalarType.Float32) / (double)_headDim).reciprocal();
        var angles = arange(length, WideOf(x)).unsqueeze(1) * frequencies.to(WideOf(x)).unsqueeze(0);
        var both = cat([angles, angles], -1);
        var rope = stack([both.cos(), both.sin()]).to(x.dtype);
        var mask = CausalMask(x, attentionMask);
        foreach (var layer in layers) x = layer.call(x, rope, mask);
        return norm.call(x);
    }

    /// <summary>The dtype of the steps that run in float32 whatever the model's dtype; float64 stays.</summary>
    public static ScalarType WideOf(Tensor x) => x.dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>[B or 1, 1, T, T]: 0 where attention is allowed, the smallest number elsewhere.</summary>
    public static Tensor CausalMask(Tensor x, Tensor? attentionMask)
    {
        long length = x.shape[1];
        var allowed = ones([length, length], ScalarType.Bool).tril().view(1, 1, length, length);
        if (attentionMask is not null) allowed = allowed.logical_and(attentionMask.to(ScalarType.Bool).unsqueeze(1).unsqueeze(1));
        double smallest = x.dtype == ScalarType.Float16 ? -65504 : -3.3895313892515355e38;
        return zeros_like(allowed, x.dtype).masked_fill_(allowed.logical_not(), smallest);
    }

    /// <summary>Plain attention: q [B, H, T, d], k and v [B, H or fewer, T, d].</summary>
    public static Tensor Attend(Tensor q, Tensor k, Tensor v, Tensor? mask)
    {
        long repeat = q.shape[1] / k.shape[1];
        if (repeat > 1) (k, v) = (k.repeat_interleave(repeat, dim: 1), v.repeat_interleave(repeat, dim: 1));
        var scores = q.matmul(k.transpose(2, 3)) * (1 / Math.Sqrt(q.shape[3]));
        if (mask is not null) scores = scores + mask;
        var weights = nn.functional.softmax(scores, -1, WideOf(q)).to(q.dtype);
        return weights.matmul(v).transpose(1, 2).flatten(2);
    }
}

public sealed class ReferenceLlamaLayer : nn.Module<Tensor, Tensor, Tensor, Tensor>
{
    private readonly ReferenceLlamaAttention self_attn;
    private readonly ReferenceLlamaMlp mlp;
    private readonly ReferenceRmsNorm input_layernorm;
    private readonly ReferenceRmsNorm post_attention_layernorm;

    public ReferenceLlamaLayer(long headDim, double epsilon, ReferenceWeights weights)
        : base(nameof(ReferenceLlamaLayer))
    {
        self_attn = new ReferenceLlamaAttention(headDim, weights.Below("self_attn."));
        mlp = new ReferenceLlamaMlp(weights.Below("mlp."));
        input_layernorm = new ReferenceRmsNorm(weights.Take("input_layernorm.weight"), epsilon);
        post_attention_layernorm = new ReferenceRmsNorm(weights.Take("post_attention_layernorm.weight"), epsilon);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Tensor rope, Tensor mask)
    {
        x = x + self_attn.call(input_layernorm.call(x), rope, mask);
        return x + mlp.call(post_attention_layernorm.call(x));
    }
}

public sealed class ReferenceLlamaAttention : nn.Module<Tensor, Tensor, Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> q_proj;
    private readonly nn.Module<Tensor, Tensor> k_proj;
    private readonly nn.Module<Tensor, Tensor> v_proj;
    private readonly nn.Module<Tensor, Tensor> o_proj;
    private readonly long _headDim;

    public ReferenceLlamaAttention(long headDim, ReferenceWeights weights)
        : base(nameof(ReferenceLlamaAttention))
    {
        _headDim = headDim;
        q_proj = weights.Linear("q_proj");
        k_proj = weights.Linear("k_proj");
        v_proj = weights.Linear("v_proj");
        o_proj = weights.Linear("o_proj");
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Tensor rope, Tensor mask)
    {
        Tensor Heads(Tensor t) => t.view(t.shape[0], t.shape[1], -1, _headDim).transpose(1, 2);
        var (cos, sin) = (rope[0], rope[1]);
        Tensor Rotate(Tensor t)
        {
            var halves = t.chunk(2, -1);
            return t * cos + cat([-halves[1], halves[0]], -1) * sin;
        }
        return o_proj.call(LlamaStack.Attend(Rotate(Heads(q_proj.call(x))), Rotate(Heads(k_proj.call(x))), Heads(v_proj.call(x)), mask));
    }
}

public sealed class ReferenceLlamaMlp : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> gate_proj;
    private readonly nn.Module<Tensor, Tensor> up_proj;
    private readonly nn.Module<Tensor, Tensor> down_proj;

    public ReferenceLlamaMlp(ReferenceWeights weights)
        : base(nameof(ReferenceLlamaMlp))
    {
        gate_proj = weights.Linear("gate_proj");
        up_proj = weights.Linear("up_proj");
        down_proj = weights.Linear("down_proj");
        RegisterComponents();
    }

    public override Tensor forward(Tensor x) => down_proj.call(nn.functional.silu(gate_proj.call(x)) * up_proj.call(x));
}

public sealed class ReferenceRmsNorm : nn.Module<Tensor, Tensor>
{
    private Parameter weight;
    private readonly double _epsilon;

    public ReferenceRmsNorm(Tensor weight, double epsilon)
        : base(nameof(ReferenceRmsNorm))
    {
        this.weight = new Parameter(weight);
        _epsilon = epsilon;
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        var wide = x.to(LlamaStack.WideOf(x));
        return weight * (wide * (wide.square().mean([-1L], keepdim: true) + _epsilon).rsqrt()).to(x.dtype);
    }
}
