using System.Runtime.CompilerServices;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Everything of a LLaVA model but its head: embedding, decoder layers, last norm, vision tower, projector, newline.</summary>
public sealed class LlavaBackbone : nn.Module
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection; adapters replace the fields' values
    [TorchSharp.Utils.ComponentName(Name = "embed_tokens")] private nn.Module<Tensor, Tensor> _embedding;
    [TorchSharp.Utils.ComponentName(Name = "layers")] private ModuleList<LlamaLayer> _layers;
    [TorchSharp.Utils.ComponentName(Name = "norm")] private nn.Module<Tensor, Tensor> _norm;
    [TorchSharp.Utils.ComponentName(Name = "vision_tower")] private VisionTower? _tower;
    [TorchSharp.Utils.ComponentName(Name = "mm_projector")] private nn.Module<Tensor, Tensor>? _projector;
    [TorchSharp.Utils.ComponentName(Name = "image_newline")] private Parameter? _newline;
#pragma warning restore IDE0044, CA1823

    // Boxed, because a field of a module type would be registered a second time. An adapter may wrap the module; the table stays this one.
    private readonly StrongBox<FrozenEmbedding> _table;

    internal LlavaBackbone(
        FrozenEmbedding embedding, IEnumerable<LlamaLayer> layers, RmsNorm norm, VisionTower? tower, nn.Module<Tensor, Tensor>? projector,
        Tensor? newline)
        : base(nameof(LlavaBackbone))
    {
        _embedding = embedding;
        _table = new StrongBox<FrozenEmbedding>(embedding);
        _layers = new ModuleList<LlamaLayer>([.. layers]);
        _norm = norm;
        _tower = tower;
        _projector = projector;
        if (newline is not null) _newline = new Parameter(newline, requires_grad: false);
        RegisterComponents();
    }

    /// <summary>The token embedding's table itself, below any adapter.</summary>
    public FrozenEmbedding Table => _table.Value!;

    /// <summary>The token embedding.</summary>
    public nn.Module<Tensor, Tensor> Embedding => _embedding;

    /// <summary>The decoder layers.</summary>
    public IList<LlamaLayer> Layers => _layers;

    /// <summary>The last norm.</summary>
    public nn.Module<Tensor, Tensor> Norm => _norm;

    /// <summary>The vision tower, or null.</summary>
    public VisionTower? VisionTower => _tower;

    /// <summary>The projector, or null.</summary>
    public nn.Module<Tensor, Tensor>? Projector => _projector;

    /// <summary>Puts another table in the place of the embedding; the old one is disposed.</summary>
    internal void ReplaceTable(FrozenEmbedding table)
    {
        ModuleTree.Replace(this, "embed_tokens", table).Dispose();
        _table.Value = table;
    }

    /// <summary>(D): what ends each row of an any-resolution image, or null.</summary>
    public Parameter? ImageNewline => _newline;
}
