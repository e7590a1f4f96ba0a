using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Runs a decoder layer without keeping its activations: its input and the stream after its attention are saved, and the backward runs the layer
/// once more. The random state of the first run is used again, so dropout draws the same mask, and the adapters that acted in the first run act
/// again; gradients are bit-equal to those without checkpointing. The second run leaves out the last product of the attention, whose result is
/// known, and that of the layer, which nobody reads.
/// </summary>
internal sealed class GradientCheckpoint : autograd.SingleTensorFunction<GradientCheckpoint>
{
    private static readonly AsyncLocal<bool> Replays = new();

    /// <summary>Whether the present call runs a layer for the second time, so that its result, and its attention's, need not be computed.</summary>
    public static bool RunsAgain => Replays.Value;

    /// <summary>The name TorchSharp registers this function under.</summary>
    public override string Name => nameof(GradientCheckpoint);

    /// <summary>Runs <paramref name="layer"/>, checkpointed where a backward may come.</summary>
    /// <param name="layer">The layer; its trainable parameters get their gradients from the nested backward.</param>
    /// <param name="x">(N, D).</param>
    /// <param name="context">Shared by all layers; must have no cache.</param>
    /// <returns>(N, D), in the current dispose scope.</returns>
    public static Tensor Run(LlamaLayer layer, Tensor x, DecoderContext context)
    {
        if (!is_grad_enabled() || (!x.requires_grad && !layer.parameters().Any(p => p.requires_grad)))
            return layer.Forward(x, context);
        using var scope = NewDisposeScope();
        // Frozen inputs (embeddings and projector not trained) must not cut the graph: the anchor makes the output require a gradient.
        var anchor = zeros(1, requires_grad: true);
        return apply(x, anchor, context.Rope.Cos, context.Rope.Sin, layer, context.Layout, x.requires_grad, new Adapters(context.Routing, context.Routing?.Now())).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        var (x, cos, sin) = ((Tensor)vars[0], (Tensor)vars[2], (Tensor)vars[3]);
        var (layer, layout) = ((LlamaLayer)vars[4], (SequenceLayout)vars[5]);
        ctx.set_materialize_grads(false);
        var random = get_rng_state();
        ctx.save_data("layer", layer);
        ctx.save_data("layout", layout);
        ctx.save_data("needsInput", vars[6]);
        ctx.save_data("adapters", vars[7]);
        var replay = new LayerReplay();
        var y = layer.Forward(x, new DecoderContext(layout, new RotaryTables(cos, sin), Replay: replay));
        ctx.save_for_backward([x, cos, sin, random, replay.Kept!]);
        return y;
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        ArgumentNullException.ThrowIfNull(grad_output);
        using var scope = NewDisposeScope();
        var saved = BackwardTensors.Saved(ctx);
        var layer = (LlamaLayer)ctx.get_data("layer");
        var layout = (SequenceLayout)ctx.get_data("layout");
        bool needsInput = (bool)ctx.get_data("needsInput");
        var now = get_rng_state();
        set_rng_state(saved[3]);
        var x = saved[0].detach().requires_grad_(needsInput);
        using (((Adapters)ctx.get_data("adapters")).Return())
        using (enable_grad())
        {
            var y = Again(layer, x, new DecoderContext(layout, new RotaryTables(saved[1], saved[2]), Replay: new LayerReplay(saved[4])));
            // Without one where nothing of the layer acted: all adapters off, and the input frozen.
            using var once = BackwardTensors.SinglePass();
            if (y.requires_grad) y.backward([grad_output]);
        }
        set_rng_state(now);
        return BackwardTensors.Return(grad_output, needsInput ? x.grad : null, null, null, null, null, null, null, null);
    }

    private static Tensor Again(LlamaLayer layer, Tensor x, DecoderContext context)
    {
        Replays.Value = true;
        try
        {
            return layer.Forward(x, context);
        }
        finally
        {
            Replays.Value = false;
        }
    }

    private sealed record Adapters(AdapterRouting? Routing, AdapterMoment? Then)
    {
        public IDisposable? Return() => Routing?.Return(Then!);
    }
}
