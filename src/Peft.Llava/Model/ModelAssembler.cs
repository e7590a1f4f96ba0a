using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Builds the modules of a model over tensors that a source hands out by name (ownership included).</summary>
internal sealed class ModelAssembler(
    LlavaConfig config, Func<string, Tensor> take, LinearStorage? storage, Func<string, Tensor?, FrozenLinear?>? stored = null)
{
    /// <summary>The whole model; the source is asked for each tensor of <see cref="ModelManifest"/> once.</summary>
    public (LlavaBackbone Model, nn.Module<Tensor, Tensor> Head) Build()
    {
        var c = config.Language;
        var embedding = new FrozenEmbedding(take("model.embed_tokens.weight"));
        var layers = Enumerable.Range(0, c.LayerCount).Select(Layer).ToList();
        var norm = new RmsNorm(take("model.norm.weight"), c.NormEpsilon);
        var tower = config.HasVision ? Tower(config.Vision!) : null;
        var projector = config.HasVision ? Projector() : null;
        var newline = config.HasImageNewline ? take("model.image_newline") : null;
        var backbone = new LlavaBackbone(embedding, layers, norm, tower, projector, newline);
        return (backbone, c.TieWordEmbeddings ? new TiedHead(() => backbone.Table.Weight) : Linear("lm_head", bias: false));
    }

    private nn.Module<Tensor, Tensor> Linear(string path, bool bias)
    {
        var b = bias ? take(path + ".bias") : null;
        if (stored?.Invoke(path, b) is { } ready) return ready;          // a layer that the checkpoint holds packed
        var weight = take(path + ".weight");
        return storage?.Invoke(path, weight, b) ?? new DenseFrozenLinear(weight, b, path[(path.LastIndexOf('.') + 1)..]);
    }

    private LlamaLayer Layer(int index)
    {
        var c = config.Language;
        string p = $"model.layers.{index}.";
        var attention = new LlamaAttention(
            Linear(p + "self_attn.q_proj", c.AttentionBias), Linear(p + "self_attn.k_proj", c.AttentionBias),
            Linear(p + "self_attn.v_proj", c.AttentionBias), Linear(p + "self_attn.o_proj", c.AttentionBias), index);
        var mlp = new LlamaMlp(
            Linear(p + "mlp.gate_proj", c.MlpBias), Linear(p + "mlp.up_proj", c.MlpBias), Linear(p + "mlp.down_proj", c.MlpBias));
        return new LlamaLayer(attention, mlp, new RmsNorm(take(p + "input_layernorm.weight"), c.NormEpsilon),
            new RmsNorm(take(p + "post_attention_layernorm.weight"), c.NormEpsilon));
    }

    private VisionTower Tower(VisionConfig v)
    {
        const string p = ModelManifest.TowerPrefix + "vision_model.";
        var embeddings = new ClipEmbeddings(take(p + "embeddings.class_embedding"), take(p + "embeddings.patch_embedding.weight"),
            take(p + "embeddings.position_embedding.weight"));
        var preNorm = Norm(p + "pre_layrnorm", v);
        var encoder = new ClipEncoder(Enumerable.Range(0, v.LayerCount).Select(i => ClipLayer($"{p}encoder.layers.{i}.", v)));
        var clip = new ClipVisionModel(new ClipVisionTransformer(embeddings, preNorm, encoder, Norm(p + "post_layernorm", v)));
        return new VisionTower(clip, config.FeatureLayer, config.KeepClassToken) { GradientsFlow = config.Layout != CheckpointLayout.Original };
    }

    private ClipLayer ClipLayer(string p, VisionConfig v)
    {
        var attention = new ClipAttention(Linear(p + "self_attn.q_proj", true), Linear(p + "self_attn.k_proj", true),
            Linear(p + "self_attn.v_proj", true), Linear(p + "self_attn.out_proj", true), v.HeadCount);
        return new ClipLayer(attention, Norm(p + "layer_norm1", v), new ClipMlp(Linear(p + "mlp.fc1", true), Linear(p + "mlp.fc2", true)),
            Norm(p + "layer_norm2", v));
    }

    private LayerNormalization Norm(string path, VisionConfig v) => new(take(path + ".weight"), take(path + ".bias"), v.NormEpsilon);

    private nn.Module<Tensor, Tensor> Projector()
    {
        if (config.Projector == ProjectorType.Linear) return Linear("model.mm_projector", config.ProjectorBias);
        int count = config.Projector.LinearCount ?? 0;
        return count == 0
            ? new IdentityProjector()
            : new MlpProjector(Enumerable.Range(0, count).Select(i => Linear($"model.mm_projector.{2 * i}", config.ProjectorBias)));
    }
}
