#pragma warning disable CS1591, IDE0044, CA1051
using System.Text.Json;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>CLIP's vision model.</summary>
public sealed class ReferenceClip : ReferenceModel
{
    private readonly ReferenceClipEmbeddings embeddings;
    private readonly LayerNorm pre_layrnorm;
    private readonly ReferenceClipEncoder encoder;
    private readonly LayerNorm post_layernorm;

    public ReferenceClip(JsonElement config, ReferenceWeights weights)
        : base(nameof(ReferenceClip))
    {
        double epsilon = config.GetProperty("layer_norm_eps").GetDouble();
        embeddings = new ReferenceClipEmbeddings(config, weights.Below("embeddings."));
        pre_layrnorm = weights.LayerNorm("pre_layrnorm", epsilon);
        encoder = new ReferenceClipEncoder(config, epsilon, weights.Below("encoder."));
        post_layernorm = weights.LayerNorm("post_layernorm", epsilon);
        RegisterComponents();
    }

    public override string? InputEmbedding => null;

    public override string? OutputHead => null;

    public override Tensor Run(ReferenceInputs inputs) => States(inputs.PixelValues!)[^1];

    /// <summary>The embedding and the output of each layer.</summary>
    public IReadOnlyList<Tensor> States(Tensor pixels) => encoder.States(pre_layrnorm.call(embeddings.call(pixels)));
}

public sealed class ReferenceClipEmbeddings : nn.Module<Tensor, Tensor>
{
    private Parameter class_embedding;
    private readonly nn.Module<Tensor, Tensor> patch_embedding;
    private readonly Embedding position_embedding;

    public ReferenceClipEmbeddings(JsonElement config, ReferenceWeights weights)
        : base(nameof(ReferenceClipEmbeddings))
    {
        class_embedding = new Parameter(weights.Take("class_embedding"));
        var kernel = weights.Take("patch_embedding.weight");
        long patch = config.GetProperty("patch_size").GetInt64();
        var convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], patch, stride: patch, bias: false, dtype: kernel.dtype);
        using (no_grad()) convolution.weight.copy_(kernel);
        patch_embedding = convolution;
        position_embedding = weights.Embedding("position_embedding");
        RegisterComponents();
    }

    public override Tensor forward(Tensor pixels)
    {
        var patches = patch_embedding.call(pixels).flatten(2).transpose(1, 2);
        var x = cat([class_embedding.expand(patches.shape[0], 1, -1), patches], 1);
        return x + position_embedding.call(arange(x.shape[1], ScalarType.Int64)).unsqueeze(0);
    }
}

public sealed class ReferenceClipEncoder : nn.Module
{
    private readonly ModuleList<ReferenceClipLayer> layers;

    public ReferenceClipEncoder(JsonElement config, double epsilon, ReferenceWeights weights)
        : base(nameof(ReferenceClipEncoder))
    {
        layers = new ModuleList<ReferenceClipLayer>([.. Enumerable.Range(0, config.GetProperty("num_hidden_layers").GetInt32())
            .Select(i => new ReferenceClipLayer(config.GetProperty("num_attention_heads").GetInt64(), epsilon, weights.Below($"layers.{i}.")))]);
        RegisterComponents();
    }

    public IReadOnlyList<Tensor> States(Tensor x)
    {
        var states = new List<Tensor> { x };
        foreach (var layer in layers) states.Add(x = layer.call(x));
        return states;
    }
}

public sealed class ReferenceClipLayer : nn.Module<Tensor, Tensor>
{
    private readonly ReferenceClipAttention self_attn;
    private readonly LayerNorm layer_norm1;
    private readonly ReferenceClipMlp mlp;
    private readonly LayerNorm layer_norm2;

    public ReferenceClipLayer(long heads, double epsilon, ReferenceWeights weights)
        : base(nameof(ReferenceClipLayer))
    {
        self_attn = new ReferenceClipAttention(heads, weights.Below("self_attn."));
        layer_norm1 = weights.LayerNorm("layer_norm1", epsilon);
        mlp = new ReferenceClipMlp(weights.Below("mlp."));
        layer_norm2 = weights.LayerNorm("layer_norm2", epsilon);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        x = x + self_attn.call(layer_norm1.call(x));
        return x + mlp.call(layer_norm2.call(x));
    }
}

public sealed class ReferenceClipAttention : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> k_proj;
    private readonly nn.Module<Tensor, Tensor> v_proj;
    private readonly nn.Module<Tensor, Tensor> q_proj;
    private readonly nn.Module<Tensor, Tensor> out_proj;
    private readonly long _heads;

    public ReferenceClipAttention(long heads, ReferenceWeights weights)
        : base(nameof(ReferenceClipAttention))
    {
        _heads = heads;
        k_proj = weights.Linear("k_proj");
        v_proj = weights.Linear("v_proj");
        q_proj = weights.Linear("q_proj");
        out_proj = weights.Linear("out_proj");
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        Tensor Heads(Tensor t) => t.view(t.shape[0], t.shape[1], _heads, -1).transpose(1, 2);
        return out_proj.call(LlamaStack.Attend(Heads(q_proj.call(x)), Heads(k_proj.call(x)), Heads(v_proj.call(x)), null));
    }
}

public sealed class ReferenceClipMlp : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> fc1;
    private readonly nn.Module<Tensor, Tensor> fc2;

    public ReferenceClipMlp(ReferenceWeights weights)
        : base(nameof(ReferenceClipMlp))
    {
        fc1 = weights.Linear("fc1");
        fc2 = weights.Linear("fc2");
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        var hidden = fc1.call(x);
        return fc2.call(hidden * (1.702 * hidden).sigmoid());
    }
}
