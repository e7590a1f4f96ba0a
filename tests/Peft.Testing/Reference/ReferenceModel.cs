using System.Text.Json;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>What a reference model takes: the recorded inputs by name.</summary>
public sealed class ReferenceInputs(IReadOnlyDictionary<string, Tensor> tensors)
{
    /// <summary>I64 [B, T].</summary>
    public Tensor InputIds => tensors["input_ids"];

    /// <summary>I64 [B, T], or null.</summary>
    public Tensor? AttentionMask => tensors.GetValueOrDefault("attention_mask");

    /// <summary>[B, 3, H, W], or null.</summary>
    public Tensor? PixelValues => tensors.GetValueOrDefault("pixel_values");

    /// <summary>I64 [B, T], or null.</summary>
    public Tensor? Labels => tensors.GetValueOrDefault("labels");
}

/// <summary>
/// A plain TorchSharp model with the module names of the Hugging Face one, read from its folder: what a user of TorchSharp would write, and
/// independent of the library's own LLaVA.
/// </summary>
public abstract class ReferenceModel : nn.Module, IAdapterTargets
{
    /// <summary>Creates the model.</summary>
    protected ReferenceModel(string name)
        : base(name)
    {
    }

    /// <inheritdoc/>
    public virtual IReadOnlyDictionary<string, IReadOnlyList<string>> AdapterGroups { get; } = new Dictionary<string, IReadOnlyList<string>>();

    /// <inheritdoc/>
    public abstract string? InputEmbedding { get; }

    /// <inheritdoc/>
    public abstract string? OutputHead { get; }

    /// <inheritdoc/>
    public virtual bool TiesEmbeddings => false;

    /// <summary>Logits [B, T, V], or the last hidden state.</summary>
    public abstract Tensor Run(ReferenceInputs inputs);

    /// <summary>Reads a model folder.</summary>
    /// <param name="folder">With config.json and model.safetensors.</param>
    /// <param name="arch">llama, gpt2, clip or llava.</param>
    /// <param name="dtype">The dtype the weights are converted to.</param>
    public static ReferenceModel Load(string folder, string arch, ScalarType dtype)
    {
        var config = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "config.json"))).RootElement;
        using var reader = SafetensorsReader.Open(Path.Combine(folder, "model.safetensors"));
        var weights = new ReferenceWeights(reader, dtype);
        ReferenceModel model = arch switch
        {
            "llama" => new ReferenceLlama(config, weights),
            "gpt2" => new ReferenceGpt2(config, weights),
            "clip" => new ReferenceClip(config, weights),
            "llava" => new ReferenceLlava(config, weights),
            _ => throw new ArgumentException($"There is no reference model for '{arch}'.", nameof(arch)),
        };
        model.eval();
        return model;
    }
}

/// <summary>Builds layers from the tensors of a file.</summary>
public sealed class ReferenceWeights(ITensorReader reader, ScalarType dtype, string prefix = "")
{
    /// <summary>The same file below a prefix.</summary>
    public ReferenceWeights Below(string more) => new(reader, dtype, prefix + more);

    /// <summary>A tensor, converted.</summary>
    public Tensor Take(string name)
    {
        using var loaded = reader.Load(prefix + name);
        return loaded.to(dtype, copy: true).DetachFromDisposeScope();
    }

    /// <summary>A tensor, converted, or null.</summary>
    public Tensor? Maybe(string name) => reader.Entries.ContainsKey(prefix + name) ? Take(name) : null;

    /// <summary>A linear layer.</summary>
    public Linear Linear(string name)
        => nn.Linear(new Parameter(Take(name + ".weight")), Maybe(name + ".bias") is { } bias ? new Parameter(bias) : null);

    /// <summary>An embedding.</summary>
    public Embedding Embedding(string name)
    {
        var weight = Take(name + ".weight");
        var embedding = nn.Embedding(weight.shape[0], weight.shape[1]);
        embedding.weight = new Parameter(weight);
        return embedding;
    }

    /// <summary>A layer norm.</summary>
    public LayerNorm LayerNorm(string name, double epsilon)
    {
        var weight = Take(name + ".weight");
        var norm = nn.LayerNorm(weight.shape[0], epsilon, dtype: dtype);
        using var noGrad = no_grad();
        norm.weight!.copy_(weight);
        norm.bias!.copy_(Take(name + ".bias"));
        return norm;
    }
}
