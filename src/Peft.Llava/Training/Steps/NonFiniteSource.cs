using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Where NaN or infinity first appears in a pass over a micro-batch.</summary>
/// <param name="Module">The path of the module, or null where it is none.</param>
/// <param name="Sentence">The finding, as a sentence.</param>
internal sealed record NonFiniteSource(string? Module, string Sentence)
{
    /// <summary>
    /// Runs a micro-batch forward once more and looks at every module's output; the first one in the order of the computation is the source. The dropout
    /// masks have to be those of the failed pass.
    /// </summary>
    /// <returns>The source, or null if every output is finite.</returns>
    public static NonFiniteSource? InForward(LlavaModel model, LlavaBatch batch)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        if (batch.Pixels is { } pixels && !IsFinite(pixels))
            return new NonFiniteSource(null, $"The pixels are not finite before any module sees them (tile {FirstBadTile(pixels)} of {pixels.shape[0]}).");
        NonFiniteSource? found = null;
        var unhook = new List<Action>();
        bool checkpointing = model.GradientCheckpointing;
        try
        {
            foreach (var (path, module) in model.named_modules())
            {
                if (module is not nn.Module<Tensor, Tensor> layer) continue;
                var hook = layer.register_forward_hook((_, input, output) =>
                {
                    if (found is null && !IsFinite(output)) found = Describe(path, layer, input);
                    return output;
                });
                unhook.Add(hook.remove);
            }
            model.GradientCheckpointing = false;
            model.LossSum(batch);
        }
        finally
        {
            unhook.ForEach(remove => remove());
            model.GradientCheckpointing = checkpointing;
        }
        return found;
    }

    /// <summary>The gradient that is not finite and lies nearest to the loss; the backward pass met it first.</summary>
    /// <returns>The source, or null if every gradient is finite.</returns>
    public static NonFiniteSource? InGradients(LlavaModel model, IEnumerable<NamedParameter> parameters)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var bad = parameters.Where(p => p.Parameter.grad is { } gradient && !IsFinite(gradient)).Select(p => p.Parameter.Handle).ToHashSet();
        string? last = model.named_parameters().Where(p => bad.Contains(p.parameter.Handle)).Select(p => p.name)
            .OrderBy(BehindTheImages).LastOrDefault();
        if (last is null) return null;
        string module = last[..last.LastIndexOf('.')];
        return new NonFiniteSource(module, $"Every module's output is finite; in the backward pass the gradient of {last} is the first that is not.");
    }

    // Tower and projector compute before the decoder, wherever the model lists them. The sort is stable.
    private static bool BehindTheImages(string name)
        => !name.Contains("vision_tower", StringComparison.Ordinal) && !name.Contains("mm_projector", StringComparison.Ordinal);

    private static NonFiniteSource Describe(string path, nn.Module module, Tensor input)
    {
        var broken = module.named_parameters().Where(p => !IsFinite(p.parameter)).Select(p => p.name).ToList();
        string why = broken.Count > 0 ? $"; its {string.Join(", ", broken.Take(3))}{(broken.Count > 3 ? ", …" : "")} {(broken.Count == 1 ? "is" : "are")} not finite"
            : input.is_floating_point() && !IsFinite(input) ? "; its input is not finite already, and no module before it gave that"
            : "; its input and its parameters are finite, so the numbers have grown too large";
        return new NonFiniteSource(path, $"The first module whose output is not finite is {path}{why}.");
    }

    private static long FirstBadTile(Tensor pixels)
    {
        for (long tile = 0; tile < pixels.shape[0]; tile++)
        {
            using var one = pixels[tile];
            if (!IsFinite(one)) return tile;
        }
        return 0;
    }

    private static bool IsFinite(Tensor tensor)
    {
        if (!tensor.is_floating_point() || tensor.numel() == 0) return true;
        using var scope = NewDisposeScope();
        return tensor.detach().isfinite().all().item<bool>();
    }
}
