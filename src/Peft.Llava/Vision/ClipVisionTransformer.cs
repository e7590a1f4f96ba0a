using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>CLIP's vision model, up to a chosen hidden state.</summary>
public sealed class ClipVisionTransformer : nn.Module
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "embeddings")] private ClipEmbeddings _embeddings;
    [TorchSharp.Utils.ComponentName(Name = "pre_layrnorm")] private LayerNormalization _preNorm;
    [TorchSharp.Utils.ComponentName(Name = "encoder")] private ClipEncoder _encoder;

    // Part of every checkpoint, never applied to a hidden state: kept so that the checkpoint can be written again.
    [TorchSharp.Utils.ComponentName(Name = "post_layernorm")] private LayerNormalization _postNorm;
#pragma warning restore IDE0044, CA1823

    internal ClipVisionTransformer(ClipEmbeddings embeddings, LayerNormalization preNorm, ClipEncoder encoder, LayerNormalization postNorm)
        : base(nameof(ClipVisionTransformer))
    {
        _embeddings = embeddings;
        _preNorm = preNorm;
        _encoder = encoder;
        _postNorm = postNorm;
        RegisterComponents();
    }

    /// <summary>The dtype the tower computes in.</summary>
    public ScalarType Dtype => _embeddings.Dtype;

    /// <summary>A hidden state: no later layer runs.</summary>
    /// <param name="pixels">(tiles, 3, S, S); cast to the tower's dtype.</param>
    /// <param name="layer">Which state.</param>
    /// <returns>(tiles, P + 1, Hv), in the current dispose scope.</returns>
    public Tensor HiddenState(Tensor pixels, FeatureLayer layer) => HiddenState(pixels, layer, usedOnce: false);

    /// <summary>The same; <paramref name="usedOnce"/> gives back the mapped pages of all weights, each layer's after it ran.</summary>
    internal Tensor HiddenState(Tensor pixels, FeatureLayer layer, bool usedOnce)
    {
        ArgumentNullException.ThrowIfNull(pixels);
        using var scope = NewDisposeScope();
        var x = _preNorm.call(_embeddings.call(pixels.to(Dtype)));
        if (usedOnce) MappedPages.ReleaseUnwritten(_embeddings.parameters().Concat(_preNorm.parameters()));
        return _encoder.Run(x, layer.Resolve(_encoder.LayerCount), usedOnce).MoveToOuterDisposeScope();
    }
}
