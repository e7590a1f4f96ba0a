using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The level that the names of a CLIP checkpoint have above the model: <c>vision_model</c>.</summary>
public sealed class ClipVisionModel : nn.Module
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "vision_model")] private ClipVisionTransformer _model;
#pragma warning restore IDE0044, CA1823

    internal ClipVisionModel(ClipVisionTransformer model)
        : base(nameof(ClipVisionModel))
    {
        _model = model;
        RegisterComponents();
    }

    /// <summary>The model.</summary>
    public ClipVisionTransformer Model => _model;
}
