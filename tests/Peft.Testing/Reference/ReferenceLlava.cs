#pragma warning disable CS1591, IDE0044, CA1051
using System.Text.Json;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>LLaVA with the module names of Hugging Face's current class; image tokens stand in the input at their full count.</summary>
public sealed class ReferenceLlava : ReferenceModel
{
    private readonly ReferenceLlavaParts model;
    private readonly nn.Module<Tensor, Tensor> lm_head;

    public ReferenceLlava(JsonElement config, ReferenceWeights weights)
        : base(nameof(ReferenceLlava))
    {
        model = new ReferenceLlavaParts(config, weights);
        lm_head = weights.Linear("language_model.lm_head");
        RegisterComponents();
    }

    public override IReadOnlyDictionary<string, IReadOnlyList<string>> AdapterGroups { get; } =
        new Dictionary<string, IReadOnlyList<string>> { ["language"] = ["model.language_model", "lm_head"] };

    public override string? InputEmbedding => "model.language_model.embed_tokens";

    public override string? OutputHead => "lm_head";

    public override Tensor Run(ReferenceInputs inputs) => lm_head.call(model.Run(inputs));
}

public sealed class ReferenceLlavaParts : nn.Module
{
    private readonly ReferenceClip vision_tower;
    private readonly nn.Module<Tensor, Tensor> multi_modal_projector;
    private readonly LlamaStack language_model;
    private readonly long _imageToken;
    private readonly int _layer;

    public ReferenceLlavaParts(JsonElement config, ReferenceWeights weights)
        : base(nameof(ReferenceLlavaParts))
    {
        _imageToken = config.GetProperty("image_token_index").GetInt64();
        _layer = config.GetProperty("vision_feature_layer").GetInt32();
        vision_tower = new ReferenceClip(config.GetProperty("vision_config"), weights.Below("vision_tower."));
        multi_modal_projector = new ReferenceProjector(weights.Below("multi_modal_projector."));
        language_model = new LlamaStack(config.GetProperty("text_config"), weights.Below("language_model.model."), shared: false);
        RegisterComponents();
    }

    public Tensor Run(ReferenceInputs inputs)
    {
        var states = vision_tower.States(inputs.PixelValues!);
        var state = states[_layer < 0 ? states.Count + _layer : _layer];
        var features = multi_modal_projector.call(state.narrow(1, 1, state.shape[1] - 1)).flatten(0, 1);
        var slots = inputs.InputIds.eq(_imageToken).unsqueeze(-1);
        var x = language_model.Embed(inputs.InputIds).masked_scatter(slots, features);
        return language_model.Run(x, inputs.AttentionMask);
    }
}

public sealed class ReferenceProjector : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> linear_1;
    private readonly nn.Module<Tensor, Tensor> linear_2;

    public ReferenceProjector(ReferenceWeights weights)
        : base(nameof(ReferenceProjector))
    {
        linear_1 = weights.Linear("linear_1");
        linear_2 = weights.Linear("linear_2");
        RegisterComponents();
    }

    public override Tensor forward(Tensor x) => linear_2.call(nn.functional.gelu(linear_1.call(x)));
}
