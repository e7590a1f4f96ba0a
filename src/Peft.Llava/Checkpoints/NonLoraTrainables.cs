using Peft.Core;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Values of the parameters that a LoRA run trains beside LoRA, the projector above all: LLaVA's <c>non_lora_trainables.bin</c>, or a copy of
/// what a model holds. Put into a model, they replace its own values; so two adapters with a projector each take turns on one base.
/// </summary>
public sealed class NonLoraTrainables : IDisposable
{
    /// <summary>LLaVA's name of the file.</summary>
    public const string FileName = "non_lora_trainables.bin";

    private const string PeftPrefix = "base_model.model.";
    private readonly OrderedDictionary<string, Tensor> _tensors;

    private NonLoraTrainables(string source, OrderedDictionary<string, Tensor> tensors) => (Source, _tensors) = (source, tensors);

    /// <summary>Where the values came from: a file, or the model.</summary>
    public string Source { get; }

    /// <summary>The values by their parameter's name in the outside world (without PEFT's prefix); they belong to this object.</summary>
    public IReadOnlyDictionary<string, Tensor> Tensors => _tensors;

    /// <summary>Copies a model's present values.</summary>
    /// <param name="model">The model; it is not changed.</param>
    /// <param name="parts">Which parts; null for projector and <c>image_newline</c>.</param>
    /// <returns>Fresh copies; the caller disposes them.</returns>
    public static NonLoraTrainables CopyOf(LlavaModel model, ModelPart parts = ModelPart.Projector | ModelPart.ImageNewline)
    {
        ArgumentNullException.ThrowIfNull(model);
        using var noGrad = no_grad();
        var tensors = new OrderedDictionary<string, Tensor>();
        foreach (var (name, parameter) in model.Parameters(parts).Where(p => !IsAdapter(p.Name)))
            tensors[External(model, name)] = parameter.detach().clone().DetachFromDisposeScope();
        return new NonLoraTrainables("the model", tensors);
    }

    /// <summary>Reads <c>non_lora_trainables.bin</c> of a folder.</summary>
    /// <param name="folder">The folder, or the file itself.</param>
    /// <returns>The values; the caller disposes them.</returns>
    /// <exception cref="TensorFileNotFoundException">There is no such file.</exception>
    /// <exception cref="PickleRefusedException">The file would build something else than tensors.</exception>
    public static NonLoraTrainables Load(string folder)
    {
        string path = Directory.Exists(folder) ? Path.Combine(folder, FileName) : folder;
        using var reader = PickleReader.Open(path);
        var tensors = new OrderedDictionary<string, Tensor>();
        foreach (string key in reader.Entries.Keys)
            tensors[key.StartsWith(PeftPrefix, StringComparison.Ordinal) ? key[PeftPrefix.Length..] : key] = reader.Load(key);
        return new NonLoraTrainables(path, tensors);
    }

    /// <summary>Puts the values into a model, cast to its parameters' dtypes. All faults are found before anything changes.</summary>
    /// <param name="model">The model, with or without adapters.</param>
    /// <exception cref="CheckpointMismatchException">The model has no parameter of a name, or one of another shape.</exception>
    public void ApplyTo(LlavaModel model)
    {
        ArgumentNullException.ThrowIfNull(model);
        var places = new Dictionary<string, Parameter>();
        foreach (var (name, parameter) in model.named_parameters())
            if (!IsAdapter(name)) places[External(model, name)] = parameter;
        var faults = new CheckpointFaults();
        foreach (var (name, value) in _tensors)
        {
            if (!places.TryGetValue(name, out var parameter)) faults.Unexpected(name);
            else faults.CheckShape(name, parameter.shape, value.shape);
        }
        faults.ThrowIfAny(Source);
        using var noGrad = no_grad();
        foreach (var (name, value) in _tensors) places[name].copy_(value);
    }

    /// <summary>The names of the values that a model's own parameters do not have, in their dtypes.</summary>
    internal List<string> UnappliedTo(LlavaModel model)
    {
        using var noGrad = no_grad();
        var places = model.named_parameters().Where(p => !IsAdapter(p.name)).ToDictionary(p => External(model, p.name), p => p.parameter);
        return [.. _tensors.Where(t => !places.TryGetValue(t.Key, out var parameter) || !Has(parameter, t.Value)).Select(t => t.Key)];
    }

    private static bool Has(Tensor parameter, Tensor value)
    {
        if (!parameter.shape.SequenceEqual(value.shape)) return false;
        using var scope = NewDisposeScope();
        return parameter.eq(value.to(parameter.dtype, parameter.device)).all().item<bool>();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var tensor in _tensors.Values) tensor.Dispose();
    }

    private static bool IsAdapter(string name) => name.Contains("lora_", StringComparison.Ordinal);

    private static string External(LlavaModel model, string name) => (nn.Module)model is IModuleNames names ? names.ToExternal(name) : name;
}
