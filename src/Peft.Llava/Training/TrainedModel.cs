using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>A model as a training sees it: with or without adapters, its parameters by the names they are saved under, and what of it learns.</summary>
internal sealed class TrainedModel
{
    private readonly HashSet<IntPtr> _norms = [];
    private double? _size;

    public TrainedModel(LlavaModel model, PeftModel? peft, TrainableParts parts)
    {
        Model = model;
        Peft = peft;
        Parts = parts;
        foreach (var module in model.modules().Prepend(model))
            if (module is RmsNorm or LayerNormalization or LayerNorm)
                foreach (var parameter in module.parameters()) _norms.Add(parameter.Handle);
        Apply(parts);
    }

    public LlavaModel Model { get; }

    public PeftModel? Peft { get; }

    public TrainableParts Parts { get; }

    /// <summary>All parameters by the names of the Python peer's <c>named_parameters()</c>.</summary>
    public IEnumerable<NamedParameter> Parameters
        => Peft is null
            ? Model.named_parameters().Select(p => new NamedParameter(p.name, p.parameter))
            : Peft.NamedParameters().Select(p => new NamedParameter(p.Name, p.Parameter));

    public IEnumerable<NamedParameter> Trained => Parameters.Where(p => p.Parameter.requires_grad);

    /// <summary>
    /// For adapters' tensors the name in the adapter's file, by the name in memory; for those of a llava-hf model without adapters the names that the published
    /// checkpoints have, which every version of transformers reads.
    /// </summary>
    public Dictionary<string, string> FileNames()
        => Peft is null
            ? Model.Config.IsHuggingFace ? Parameters.ToDictionary(p => p.Name, p => HuggingFaceKeys.ToExternal(p.Name, HuggingFaceKeyStyle.Classic), StringComparer.Ordinal) : []
            : Peft.Hosts.SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf).Select(t => (Memory: $"base_model.model.{h.ModulePath}.{t.MemoryName}", File: $"base_model.model.{h.ModulePath}.{t.DiskName}")))
                .ToDictionary(n => n.Memory, n => n.File, StringComparer.Ordinal);

    /// <summary>
    /// Where the peer's model has a parameter, for those that count by place: transformers' LLaVA has <c>image_newline</c>, tower and projector before the language
    /// model, LLaVA's own after it, as here.
    /// </summary>
    public int PeerPlaceOf(string name)
    {
        if (!Model.Config.IsHuggingFace) return 0;
        string[] first = ["image_newline", "vision_tower", "multi_modal_projector"];
        int place = Array.FindIndex(first, part => name.Contains(part, StringComparison.Ordinal));
        return place < 0 && name.Contains("mm_projector", StringComparison.Ordinal) ? 2 : place < 0 ? first.Length : place;
    }

    /// <summary>Elements of all parameters but embedding tables, frozen and packed ones too: the size by which transformers estimates operations.</summary>
    public double SizeBesideEmbeddings => _size ??= CountBesideEmbeddings();

    private double CountBesideEmbeddings()
    {
        string[] tables = ["model.embed_tokens.weight", ModelManifest.TowerPrefix + "vision_model.embeddings.position_embedding.weight"];
        double size = ModelManifest.Of(Model.Config).Where(t => !tables.Contains(t.Name)).Sum(t => t.Shape.Aggregate(1.0, (product, side) => product * side));
        var adapters = (Peft?.Hosts ?? []).Where(h => h is not ModuleToSave { Original: IEmbeddingTable or Embedding }).SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf));
        return size + adapters.Sum(t => (double)t.Tensor.numel());
    }

    public IReadOnlyList<ParameterGroup> Groups(TrainingOptions options)
        => ParameterGroups.Build(Trained, p => _norms.Contains(p.Parameter.Handle), options.LearningRate, options.ProjectorLearningRate, options.WeightDecay);

    /// <summary>Puts the model into the state in which it is trained; disposing the scope puts back what was found.</summary>
    /// <param name="options">The options.</param>
    /// <param name="dropout">Where masks come from, unless the adapters have a source that the caller gave them.</param>
    public IDisposable Training(TrainingOptions options, TrainingDropout dropout)
    {
        bool training = Model.training, checkpointing = Model.GradientCheckpointing;
        var precision = Peft?.Precision;
        var source = Peft?.Dropout;
        Model.train();
        Model.VisionTower?.eval();
        Model.GradientCheckpointing = options.GradientCheckpointing;
        if (Peft is not null && options.Precision != TrainingPrecision.Float32) Peft.Precision = AdapterPrecision.BaseDtype;
        if (source is SeededDropout) Peft!.Dropout = dropout;
        return new Restore(() =>
        {
            Model.train(training);
            Model.GradientCheckpointing = checkpointing;
            if (Peft is null) return;
            Peft.Precision = precision!.Value;
            Peft.Dropout = source!;
        });
    }

    private void Apply(TrainableParts parts)
    {
        if (Peft is null)
        {
            Model.SetTrainable(ModelPart.Decoder | ModelPart.Embedding, parts.LanguageModel);
            Model.SetTrainable(ModelPart.Head, parts.Head);
        }
        else if (!parts.Adapter)
        {
            foreach (var (_, parameter) in Peft.TrainableParameters().ToList()) parameter.requires_grad_(false);
        }
        if (!HoldsAdapters(ModelPart.VisionTower)) Model.SetTrainable(ModelPart.VisionTower, false);
        if (!HoldsAdapters(ModelPart.Projector)) Model.SetTrainable(ModelPart.Projector, parts.Projector);
        bool drawn = Model.BesideBase.HasFlag(ModelPart.ImageNewline) && (parts.Adapter || parts.Head);
        Model.SetTrainable(ModelPart.ImageNewline, parts.ImageNewline ?? (parts.LanguageModel || drawn));
    }

    // A part that adapters are on (modules_to_save, LoRA in the tower) is trained as they say.
    private bool HoldsAdapters(ModelPart part)
        => Peft is not null && Model.Parameters(part).Any(p => p.Name.Contains("lora_", StringComparison.Ordinal) || p.Name.Contains("modules_to_save", StringComparison.Ordinal));

    private sealed class Restore(Action restore) : IDisposable
    {
        public void Dispose() => restore();
    }
}
