using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// A LLaVA model, or a plain LLaMA (without vision). Paths of its modules are those of LLaVA's own repository
/// (<c>model.layers.0.self_attn.q_proj</c>, <c>model.mm_projector.0</c>, <c>lm_head</c>), whatever layout it was loaded from.
/// Everything is frozen until a part is made trainable or adapters are put on.
/// </summary>
/// <remarks>Letters: B samples, N packed tokens, T padded length, S supervised tokens, P features per tile, D width, V vocabulary.</remarks>
public sealed partial class LlavaModel : nn.Module, IGradientCheckpointing
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection; adapters replace the fields' values
    [TorchSharp.Utils.ComponentName(Name = "model")] private LlavaBackbone _model;
    [TorchSharp.Utils.ComponentName(Name = "lm_head")] private nn.Module<Tensor, Tensor> _head;
#pragma warning restore IDE0044, CA1823
    private readonly RotaryEmbedding _rope;

    internal LlavaModel(LlavaConfig config, LlavaBackbone model, nn.Module<Tensor, Tensor> head)
        : base(nameof(LlavaModel))
    {
        Config = config;
        _model = model;
        _head = head;
        var c = config.Language;
        _rope = new RotaryEmbedding(c.HeadDim, c.RopeTheta, c.MaxPositions, c.RopeScaling);
        RegisterComponents();
        eval();
    }

    /// <summary>The configuration, with the tower's sizes.</summary>
    public LlavaConfig Config { get; private set; }

    /// <summary>Whether decoder layers keep only their input for the backward and run again there.</summary>
    public bool GradientCheckpointing { get; set; }

    /// <summary>See <see cref="RotaryEmbedding.TableDtype"/>; null, the default, is what is right.</summary>
    public ScalarType? RotaryTableDtype
    {
        get => _rope.TableDtype;
        set => _rope.TableDtype = value;
    }

    /// <summary>The model without its head.</summary>
    public LlavaBackbone Model => _model;

    /// <summary>The output head, (…, D) to (…, V).</summary>
    public nn.Module<Tensor, Tensor> Head => _head;

    /// <summary>The vision tower, or null.</summary>
    public VisionTower? VisionTower => _model.VisionTower;

    /// <summary>The projector, or null.</summary>
    public nn.Module<Tensor, Tensor>? Projector => _model.Projector;

    /// <summary>The dtype of token vectors, which the decoder computes in.</summary>
    public ScalarType Dtype => EmbeddingWeight.dtype;

    /// <summary>The device of the token vectors.</summary>
    public Device Device => EmbeddingWeight.device;

    /// <summary>Runs the model.</summary>
    /// <param name="batch">The batch; moved to the model's device if it is elsewhere.</param>
    /// <param name="options">What to compute and keep; null for logits at every token.</param>
    /// <returns>Tensors in the current dispose scope, with autograd unless the caller switched it off.</returns>
    /// <exception cref="BatchException">The batch has images and the model no vision tower.</exception>
    public LlavaOutput Forward(LlavaBatch batch, ForwardOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(batch);
        options ??= new ForwardOptions();
        using var pass = _routing?.Begin();
        using var scope = NewDisposeScope();
        using var moved = OnDevice(batch);
        var b = moved ?? batch;
        var output = new LlavaOutput { Layout = b.Layout };
        var x = Embed(b, options, ref output);
        x = Decode(x, b.Layout, options, ref output);
        var rows = options.Logits == LogitRows.Last ? x.index_select(0, LastRows(b.Layout)) : x;
        if (options.Capture.HasFlag(Captures.FinalNorm) || options.Logits == LogitRows.All)
        {
            using var tokens = RouteTokens(b.Layout);
            var normed = _model.Norm.call(x);
            if (options.Capture.HasFlag(Captures.FinalNorm)) output = output with { FinalNorm = normed.MoveToOuterDisposeScope() };
            if (options.Logits == LogitRows.All) output = output with { Logits = Logits(normed).MoveToOuterDisposeScope() };
        }
        using var last = RouteSamples(b.Layout.Count);
        if (options.Logits == LogitRows.Last) output = output with { Logits = Logits(_model.Norm.call(rows)).MoveToOuterDisposeScope() };
        if (options.Loss && b.Labels is not null)
            output = output with { Loss = (LossSum(x, b) / b.SupervisedTokens).MoveToOuterDisposeScope() };
        return output;
    }

    /// <summary>The training loss, with logits computed at supervised tokens only.</summary>
    /// <param name="batch">The batch, with labels; moved to the model's device if it is elsewhere.</param>
    /// <param name="options"><see cref="ForwardOptions.ProjectorAlwaysTakesPart"/> counts; nothing else does.</param>
    /// <returns>
    /// The sum of the cross-entropies, an F32 scalar in the current dispose scope, and the number of supervised tokens it is a sum of.
    /// </returns>
    public (Tensor Sum, long Count) LossSum(LlavaBatch batch, ForwardOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(batch);
        options = new ForwardOptions { Logits = LogitRows.None, ProjectorAlwaysTakesPart = options?.ProjectorAlwaysTakesPart ?? false };
        using var pass = _routing?.Begin();
        using var scope = NewDisposeScope();
        using var moved = OnDevice(batch);
        var b = moved ?? batch;
        var output = new LlavaOutput { Layout = b.Layout };
        var x = Decode(Embed(b, options, ref output), b.Layout, options, ref output);
        return (LossSum(x, b).MoveToOuterDisposeScope(), b.SupervisedTokens);
    }

    /// <summary>Projected features of image tiles.</summary>
    /// <param name="pixels">(tiles, 3, S, S), floating point.</param>
    /// <returns>The tower's features (tiles, P, Hv) and the projector's output (tiles, P, D), in the current dispose scope.</returns>
    /// <exception cref="InvalidOperationException">The model has no vision tower.</exception>
    public (Tensor Vision, Tensor Projected) EncodeImages(Tensor pixels)
    {
        ArgumentNullException.ThrowIfNull(pixels);
        return EncodeImages(pixels, null);
    }

    private (Tensor Vision, Tensor Projected) EncodeImages(Tensor pixels, LlavaBatch? batch)
    {
        if (_model.VisionTower is null || _model.Projector is null)
            throw new InvalidOperationException("The model has no vision tower: it was loaded from a plain language model.");
        using var pass = _routing?.Begin();
        using var scope = NewDisposeScope();
        using var tiles = RouteTiles(batch, pixels.shape[0]);
        var vision = _model.VisionTower.call(pixels);
        // A matrix where memory allows it: libtorch then adds the bias before it rounds to bfloat16. Without the class token the features are
        // a slice, which the reference does not flatten either.
        var features = vision.to(ProjectorDtype);
        var projected = _model.Projector.call(features.is_contiguous() ? features.flatten(0, 1) : features)
            .view(vision.shape[0], vision.shape[1], -1);
        return (vision.MoveToOuterDisposeScope(), projected.MoveToOuterDisposeScope());
    }

    private Parameter EmbeddingWeight => _model.Table.Weight;

    private ScalarType ProjectorDtype => _model.Projector!.parameters().FirstOrDefault()?.dtype ?? Dtype;

    private LlavaBatch? OnDevice(LlavaBatch batch)
        => batch.TokenIds.device_type == EmbeddingWeight.device_type ? null : batch.To(EmbeddingWeight.device);

    private Tensor LossSum(Tensor states, LlavaBatch batch)
    {
        using var supervised = RouteSupervised(batch, 0, batch.SupervisedTokens);
        return SupervisedLoss.Sum(_model.Norm.call(states.index_select(0, batch.TargetRows)).to(states.dtype), batch.Targets, _head, (start, count) => RouteSupervised(batch, start, count));
    }

    private Tensor Logits(Tensor normed) => _head.call(normed.to(Dtype)).to(ScalarType.Float32);

    private static Tensor LastRows(SequenceLayout layout)
        => tensor(Enumerable.Range(0, layout.Count).Select(s => (long)layout.Offsets[s] + layout.Lengths[s] - 1).ToArray());

    private Tensor Embed(LlavaBatch batch, ForwardOptions options, ref LlavaOutput output)
    {
        using var tokens = RouteTokens(batch.Layout);
        var x = _model.Embedding.call(batch.TokenIds);
        var pixels = batch.Pixels;
        if (pixels is null && options.ProjectorAlwaysTakesPart && Config.Vision is { } v)
            pixels = zeros([1, v.ChannelCount, v.ImageSize, v.ImageSize], VisionTower!.Dtype, x.device);
        if (pixels is not null)
        {
            if (VisionTower is null) throw new BatchException(batch.SampleIds[0], "has images, but the model has no vision tower. Load a LLaVA checkpoint, or leave the images out.");
            var (vision, projected) = EncodeImages(pixels, batch);
            var features = MultimodalMerge.Gather(projected, _model.ImageNewline, batch.FeatureRows);
            x = MultimodalMerge.Apply(x, batch.ImageRows, features);
            if (options.Capture.HasFlag(Captures.Vision))
                output = output with { VisionFeatures = vision.MoveToOuterDisposeScope(), ProjectedFeatures = projected.MoveToOuterDisposeScope() };
            if (options.Capture.HasFlag(Captures.Embeddings)) output = output with { ImageFeatures = features.MoveToOuterDisposeScope() };
        }
        if (options.Capture.HasFlag(Captures.Embeddings)) output = output with { Embeddings = x.alias().MoveToOuterDisposeScope() };
        return x;
    }

    private Tensor Decode(Tensor x, SequenceLayout layout, ForwardOptions options, ref LlavaOutput output)
    {
        using var scope = NewDisposeScope();
        var rope = _rope.Tables(layout.PositionIds(x.device), layout.PaddedLength, x.dtype);
        using var tokens = RouteTokens(layout);
        var context = new DecoderContext(layout, rope, Routing: _routing);
        var captured = new List<Tensor>();
        x = x.alias();
        // The last layer's backward comes next: running it again would cost time and save nothing.
        var last = _model.Layers[^1];
        foreach (var layer in _model.Layers)
        {
            var next = GradientCheckpointing && training && layer != last ? GradientCheckpoint.Run(layer, x, context) : layer.Forward(x, context);
            x.Dispose();
            x = next;
            if (options.Capture.HasFlag(Captures.Layers)) captured.Add(x.alias().MoveToOuterDisposeScope().MoveToOuterDisposeScope());
        }
        if (captured.Count > 0) output = output with { LayerOutputs = captured };
        return x.MoveToOuterDisposeScope();
    }
}
