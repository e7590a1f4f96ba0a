using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Puts the model together that LLaVA's script trains: a language model or LLaVA, a vision tower from its own folder, a projector from the base,
/// from stage 1 or freshly drawn, and rows for the image tokens (<c>initialize_vision_modules</c>, <c>initialize_vision_tokenizer</c>).
/// </summary>
internal sealed class BaseAssembly : IDisposable
{
    private const string ProjectorPrefix = "model.mm_projector.";

    private readonly LlavaArguments _arguments;
    private readonly List<ITensorReader> _readers = [];
    private readonly Dictionary<string, (ITensorReader Reader, string Key)> _places = new(StringComparer.Ordinal);
    private readonly SampledFingerprint _fingerprint = new();
    private int _addedTokens;
    private bool _addsPatch;

    private BaseAssembly(LlavaArguments arguments) => _arguments = arguments;

    public static LlavaModel Build(LlavaArguments arguments)
    {
        using var assembly = new BaseAssembly(arguments);
        return assembly.Build();
    }

    /// <summary>The configuration that the model will have, and the folder that its tower comes from; null where the base itself has it, or has none.</summary>
    public static (LlavaConfig Config, string? Tower) Describe(LlavaArguments arguments)
    {
        var own = LlavaConfig.Load(arguments.Model.ModelPath);
        using var assembly = new BaseAssembly(arguments);
        assembly.PlanTokens(own);
        if (!ImageTokens.GetsTower(arguments, own)) return LlavaLoader.DescribeTower(arguments.Model.ModelPath, own);
        var vision = LlavaConfigJson.LoadVision(arguments.Model.VisionTower!);
        return (assembly.Describe(own, vision, arguments.Model.VisionTower!).WithVision(vision), arguments.Model.VisionTower);
    }

    public void Dispose()
    {
        _fingerprint.Dispose();
        _readers.ForEach(r => r.Dispose());
    }

    private ScalarType Dtype => KbitRecipe.DtypeOf(_arguments.Training.Precision);

    // What learns beside a float16 base is float32.
    private ScalarType ProjectorDtype => Dtype == ScalarType.Float16 ? ScalarType.Float32 : Dtype;

    private LlavaModel Build()
    {
        var own = LlavaConfig.Load(_arguments.Model.ModelPath);
        PlanTokens(own);
        if (!ImageTokens.GetsTower(_arguments, own))
        {
            return LlavaModel.Load(_arguments.Model.ModelPath, new LlavaLoadOptions
            {
                Dtype = Dtype,
                ProjectorDtype = ProjectorDtype,
                Quantization = KbitRecipe.ConfigOf(_arguments),
                Config = own.Layout == CheckpointLayout.Original ? own.With("tokenizer_model_max_length", _arguments.Training.MaxLength) : null,
            });
        }
        string tower = _arguments.Model.VisionTower!;
        var vision = LlavaConfigJson.LoadVision(tower);
        var config = Describe(own, vision, tower).WithVision(vision);
        Place(Open(_arguments.Model.ModelPath), key => key);
        Place(Open(tower), key => key.StartsWith("vision_model.", StringComparison.Ordinal) ? ModelManifest.TowerPrefix + key : null);
        if (_arguments.Model.ProjectorWeights is { } projector)
            Place(Keep(PickleReader.Open(projector)), key => key.Split("mm_projector.") is [_, var rest] ? ProjectorPrefix + rest : null);
        using var random = new Generator((ulong)_arguments.Training.Seed);
        var state = new Dictionary<string, Tensor>(StringComparer.Ordinal);
        try
        {
            var manifest = ModelManifest.Of(config);
            foreach (var spec in manifest)
                if (TensorOf(spec, manifest, random) is { } tensor) state[spec.Name] = tensor;
            var quantization = KbitRecipe.ConfigOf(_arguments);
            var model = LlavaModel.FromState(config, state, quantization is null ? null : new ModelQuantizer(quantization).Store);
            model.BaseFingerprint = _fingerprint.Digest();
            return model;
        }
        catch
        {
            foreach (var tensor in state.Values) tensor.Dispose();
            throw;
        }
    }

    private void PlanTokens(LlavaConfig own)
    {
        if (_arguments.Model is { UseImagePatchToken: false, UseImageStartEnd: false }) return;
        var before = LlamaTokenizer.FromFolder(_arguments.Model.ModelPath);
        _addedTokens = ImageTokens.Extend(before, _arguments, own).Count - before.Count;
        _addsPatch = _arguments.Model.UseImagePatchToken && before.IdOf(ImageTokens.Patch) is null;
    }

    private LlavaConfig Describe(LlavaConfig own, VisionConfig vision, string tower)
    {
        var a = _arguments;
        var document = own.ToJson();
        document["model_type"] = "llava_llama";
        document["mm_vision_tower"] = tower;
        document["use_mm_proj"] = true;
        document["mm_projector_type"] = a.Model.ProjectorType;
        document["mm_hidden_size"] = vision.HiddenSize;
        document["mm_vision_select_layer"] = a.Model.VisionSelectLayer;
        document["mm_vision_select_feature"] = a.Model.VisionSelectFeature;
        document["mm_patch_merge_type"] = a.Model.PatchMergeType;
        document["mm_use_im_start_end"] = a.Model.UseImageStartEnd;
        document["mm_use_im_patch_token"] = a.Model.UseImagePatchToken;
        document["image_aspect_ratio"] = a.Data.ImageAspectRatio;
        document["tokenizer_padding_side"] = "right";
        document["tokenizer_model_max_length"] = a.Training.MaxLength;
        if (_addedTokens > 0) document["vocab_size"] = own.Language.VocabularySize + _addedTokens;
        return LlavaConfig.Parse(document, own.Source);
    }

    private ITensorReader Open(string folder) => Keep(TensorFiles.Open(folder));

    private ITensorReader Keep(ITensorReader reader)
    {
        _readers.Add(reader);
        return reader;
    }

    private void Place(ITensorReader reader, Func<string, string?> rename)
    {
        foreach (string key in reader.Entries.Keys)
            if (rename(key) is { } name) _places[name] = (reader, key);
    }

    /// <summary>A tensor of the model, or null where the files have none: the model then names it as missing.</summary>
    private Tensor? TensorOf(TensorSpec spec, IReadOnlyList<TensorSpec> all, Generator random)
    {
        using var noGrad = no_grad();
        bool projector = spec.Name.StartsWith(ProjectorPrefix, StringComparison.Ordinal);
        if (!_places.TryGetValue(spec.Name, out var place)) return projector ? DrawProjector(spec, all, random) : null;
        var dtype = projector && !BaseHas(spec.Name) ? NewProjectorDtype : DtypeOf(spec.Name);
        var tensor = place.Reader.Map(place.Key);
        Remember(spec.Name, place.Reader, tensor);
        if (tensor.dtype != dtype)
        {
            using var stored = tensor;
            tensor = stored.to(dtype).DetachFromDisposeScope();
        }
        if (_addedTokens == 0 || spec.Name is not ("model.embed_tokens.weight" or "lm_head.weight")) return tensor;
        using (tensor) return Grow(tensor, spec.Shape[0], random);
    }

    private ScalarType DtypeOf(string name)
        => _arguments.Model.HalfPrecisionTower && Dtype == ScalarType.Float32 && name.StartsWith(ModelManifest.TowerPrefix, StringComparison.Ordinal)
            ? ScalarType.Float16
            : LlavaModel.PartOf(name) is ModelPart.Projector or ModelPart.ImageNewline ? ProjectorDtype : Dtype;

    // LLaVA makes a projector that the base lacks in float32, and keeps it so, whatever the rest has; on a quantised base it gets the run's dtype.
    private ScalarType NewProjectorDtype => _arguments.Model.Bits == 16 ? ScalarType.Float32 : ProjectorDtype;

    /// <summary>
    /// What base and tower hold makes the fingerprint, as <see cref="LlavaModel.Load"/> makes it: a projector that comes from elsewhere is no part of the base, and one
    /// that takes the place of the base's own doesn't change what the base is.
    /// </summary>
    private void Remember(string name, ITensorReader from, Tensor tensor)
    {
        if (!name.StartsWith(ProjectorPrefix, StringComparison.Ordinal) || from == _readers[0])
        {
            _fingerprint.Add(name, tensor);
        }
        else if (BaseHas(name))
        {
            using var own = _readers[0].Map(name);
            _fingerprint.Add(name, own);
        }
    }

    private bool BaseHas(string name) => _readers[0].Entries.ContainsKey(name);

    // torch.nn.Linear's own start: weight and bias uniform within 1 / sqrt(inputs).
    private Tensor DrawProjector(TensorSpec spec, IReadOnlyList<TensorSpec> all, Generator random)
    {
        using var scope = NewDisposeScope();
        string weight = spec.Name[..(spec.Name.LastIndexOf('.') + 1)] + "weight";
        double bound = 1 / Math.Sqrt(all.First(s => s.Name == weight).Shape[1]);
        return rand([.. spec.Shape], ScalarType.Float32, generator: random).mul_(2 * bound).sub_(bound).to(NewProjectorDtype).DetachFromDisposeScope();
    }

    // <im_patch> is drawn as transformers draws a new row; <im_start> and <im_end> are the mean of all rows before them.
    private Tensor Grow(Tensor table, long rows, Generator random)
    {
        using var scope = NewDisposeScope();
        var patch = _addsPatch
            ? randn([1, table.shape[1]], ScalarType.Float32, generator: random).mul_(0.02).to(table.dtype)
            : null;
        return EmbeddingResize.WithMeanRows(table, rows, patch).DetachFromDisposeScope();
    }
}
