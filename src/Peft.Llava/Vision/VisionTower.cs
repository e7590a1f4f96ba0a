using System.Security.Cryptography;
using System.Text;
using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>LLaVA's vision tower: a CLIP model whose selected hidden state is what the projector reads.</summary>
public sealed class VisionTower : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "vision_tower")] private ClipVisionModel _clip;
#pragma warning restore IDE0044, CA1823
    private readonly FeatureLayer _layer;
    private readonly bool _keepClassToken;

    internal VisionTower(ClipVisionModel clip, FeatureLayer layer, bool keepClassToken)
        : base(nameof(VisionTower))
    {
        _clip = clip;
        _layer = layer;
        _keepClassToken = keepClassToken;
        RegisterComponents();
    }

    /// <summary>The dtype the tower computes in.</summary>
    public ScalarType Dtype => _clip.Model.Dtype;

    /// <summary>
    /// Whether gradients flow through the tower to trained parameters in it. LLaVA runs it without gradients always, even if
    /// <c>unfreeze_mm_vision_tower</c> is set; transformers' LLaVA lets them through (the default of that layout).
    /// </summary>
    public bool GradientsFlow { get; set; }

    /// <summary>Features that were computed before, or null. Only for a frozen tower; the cache is not owned.</summary>
    public FeatureCache? Cache { get; set; }

    /// <summary>Features of image tiles.</summary>
    /// <param name="input">(tiles, 3, S, S), floating point; cast to the tower's dtype.</param>
    /// <returns>(tiles, P, Hv), in the current dispose scope.</returns>
    /// <exception cref="InvalidOperationException">There is a <see cref="Cache"/>, and something of the tower is trained.</exception>
    public override Tensor forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        if (Cache is { } cache)
        {
            if (!IsFrozen)
                throw new InvalidOperationException("The vision tower has a feature cache and trained parameters, whose features change. Freeze it, or set Cache to null.");
            return cache.Apply(input, pixels => Select(pixels, usedOnce: false)).MoveToOuterDisposeScope();
        }
        // A step that trains uses a frozen tower once, before all that makes it large: its mapped weights need not stay resident until the next.
        bool once = is_grad_enabled() && IsFrozen;
        using (set_grad_enabled(is_grad_enabled() && GradientsFlow)) return Select(input, once).MoveToOuterDisposeScope();
    }

    /// <summary>The fingerprint of all that features depend on but the pixels.</summary>
    internal string Fingerprint()
    {
        string weights = TensorFingerprint.OfContent(state_dict());
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{weights} layer {_layer.Value} class {_keepClassToken} {Dtype}")));
    }

    private bool IsFrozen => !parameters().Any(p => p.requires_grad);

    private Tensor Select(Tensor pixels, bool usedOnce)
    {
        var state = _clip.Model.HiddenState(pixels, _layer, usedOnce);
        return _keepClassToken ? state : state.narrow(1, 1, state.shape[1] - 1);
    }
}
