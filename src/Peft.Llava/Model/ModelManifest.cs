namespace Peft.Llava;

/// <summary>All tensors of a model by name and shape, from its configuration alone.</summary>
public static class ModelManifest
{
    /// <summary>The prefix of the vision tower's tensors.</summary>
    public const string TowerPrefix = "model.vision_tower.vision_tower.";

    /// <summary>Lists the tensors.</summary>
    /// <param name="config">The configuration, with the tower's sizes where the model has one.</param>
    /// <returns>Name and shape of each, in the order of the modules.</returns>
    public static IReadOnlyList<TensorSpec> Of(LlavaConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var list = new List<TensorSpec>();
        var c = config.Language;
        Add("model.embed_tokens.weight", c.VocabularySize, c.HiddenSize);
        for (int i = 0; i < c.LayerCount; i++) Layer($"model.layers.{i}.");
        Add("model.norm.weight", c.HiddenSize);
        if (config.HasVision)
        {
            Tower(config.Vision!);
            Projector();
            if (config.HasImageNewline) Add("model.image_newline", c.HiddenSize);
        }
        if (!c.TieWordEmbeddings) Add("lm_head.weight", c.VocabularySize, c.HiddenSize);
        return list;

        void Add(string name, params long[] shape) => list.Add(new TensorSpec(name, shape));

        void Linear(string path, long output, long input, bool bias)
        {
            Add(path + ".weight", output, input);
            if (bias) Add(path + ".bias", output);
        }

        void Norm(string path, long width)
        {
            Add(path + ".weight", width);
            Add(path + ".bias", width);
        }

        void Layer(string p)
        {
            long h = c.HiddenSize, q = (long)c.HeadCount * c.HeadDim, kv = (long)c.KeyValueHeadCount * c.HeadDim;
            Linear(p + "self_attn.q_proj", q, h, c.AttentionBias);
            Linear(p + "self_attn.k_proj", kv, h, c.AttentionBias);
            Linear(p + "self_attn.v_proj", kv, h, c.AttentionBias);
            Linear(p + "self_attn.o_proj", h, q, c.AttentionBias);
            Linear(p + "mlp.gate_proj", c.IntermediateSize, h, c.MlpBias);
            Linear(p + "mlp.up_proj", c.IntermediateSize, h, c.MlpBias);
            Linear(p + "mlp.down_proj", h, c.IntermediateSize, c.MlpBias);
            Add(p + "input_layernorm.weight", h);
            Add(p + "post_attention_layernorm.weight", h);
        }

        void Tower(VisionConfig v)
        {
            const string p = TowerPrefix + "vision_model.";
            Add(p + "embeddings.class_embedding", v.HiddenSize);
            Add(p + "embeddings.patch_embedding.weight", v.HiddenSize, v.ChannelCount, v.PatchSize, v.PatchSize);
            Add(p + "embeddings.position_embedding.weight", v.PatchCount + 1, v.HiddenSize);
            Norm(p + "pre_layrnorm", v.HiddenSize);
            for (int i = 0; i < v.LayerCount; i++)
            {
                string l = $"{p}encoder.layers.{i}.";
                foreach (string name in (string[])["k_proj", "v_proj", "q_proj", "out_proj"])
                    Linear($"{l}self_attn.{name}", v.HiddenSize, v.HiddenSize, true);
                Norm(l + "layer_norm1", v.HiddenSize);
                Linear(l + "mlp.fc1", v.IntermediateSize, v.HiddenSize, true);
                Linear(l + "mlp.fc2", v.HiddenSize, v.IntermediateSize, true);
                Norm(l + "layer_norm2", v.HiddenSize);
            }
            Norm(p + "post_layernorm", v.HiddenSize);
        }

        void Projector()
        {
            int count = config.Projector.LinearCount ?? 0;
            if (config.Projector == ProjectorType.Linear)
            {
                Linear("model.mm_projector", c.HiddenSize, config.Vision!.HiddenSize, config.ProjectorBias);
                return;
            }
            for (int i = 0; i < count; i++)
                Linear($"model.mm_projector.{2 * i}", c.HiddenSize, i == 0 ? config.Vision!.HiddenSize : c.HiddenSize, config.ProjectorBias);
        }
    }
}
