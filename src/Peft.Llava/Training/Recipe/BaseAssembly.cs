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
    private readonly LlavaArguments _arguments;
    private readonly Device _device;
    private readonly List<string> _warnings;
    private readonly List<ITensorReader> _readers = [];
    private readonly Dictionary<string, (ITensorReader Reader, string Key)> _places = new(StringComparer.Ordinal);
    private readonly SampledFingerprint _fingerprint = new();
    private int _addedTokens;
    private bool _addsPatch;
    private ITensorReader? _rows;

    private BaseAssembly(LlavaArguments arguments, Device device, List<string> warnings) => (_arguments, _device, _warnings) = (arguments, device, warnings);

    /// <summary>The model, on a device; what is not done as a flag says is added to the warnings.</summary>
    public static LlavaModel Build(LlavaArguments arguments, Device device, List<string> warnings)
    {
        using var assembly = new BaseAssembly(arguments, device, warnings);
        return assembly.Build();
    }

    /// <summary>The configuration that the model will have, and the folder that its tower comes from; null where the base itself has it, or has none.</summary>
    public static (LlavaConfig Config, string? Tower) Describe(LlavaArguments arguments)
    {
        var own = LlavaConfig.Load(arguments.Model.ModelPath);
        if (VisionPlan.Problems(arguments, own) is { Count: > 0 } problems) throw new TrainingOptionsException(problems);
        using var assembly = new BaseAssembly(arguments, CPU, []);
        assembly.PlanTokens(own);
        if (!ImageTokens.GetsTower(arguments, own)) return LlavaLoader.DescribeTower(arguments.Model.ModelPath, own);
        var vision = LlavaConfigJson.LoadVision(arguments.Model.VisionTower!);
        return (assembly.Describe(own, vision, arguments.Model.VisionTower!, VisionPlan.Of(arguments, own)).WithVision(vision), arguments.Model.VisionTower);
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
        if (VisionPlan.Problems(_arguments, own) is { Count: > 0 } problems) throw new TrainingOptionsException(problems);
        PlanTokens(own);
        if (!ImageTokens.GetsTower(_arguments, own))
        {
            return LlavaModel.Load(_arguments.Model.ModelPath, new LlavaLoadOptions
            {
                Dtype = Dtype,
                ProjectorDtype = ProjectorDtype,
                Quantization = KbitRecipe.ConfigOf(_arguments),
                Device = _device,
                Config = own.Layout == CheckpointLayout.Original && _arguments.Training.MaxLength is int length ? own.With("tokenizer_model_max_length", length) : null,
            });
        }
        string tower = _arguments.Model.VisionTower!;
        var vision = LlavaConfigJson.LoadVision(tower);
        var plan = VisionPlan.Of(_arguments, own);
        _warnings.AddRange(plan.Warnings);
        var config = Describe(own, vision, tower, plan).WithVision(vision);
        var reader = Open(_arguments.Model.ModelPath);
        Place(reader, key => key);
        PlaceTower(own, reader, tower);
        var manifest = ModelManifest.Of(config);
        if (_arguments.Model.ProjectorWeights is { } projector) PlaceProjector(projector, manifest, plan.UsesStartEnd);
        RequireNewline(own, config);
        using var random = new Generator((ulong)_arguments.Training.Seed);
        var state = new Dictionary<string, Tensor>(StringComparer.Ordinal);
        try
        {
            foreach (var spec in manifest)
                if (TensorOf(spec, manifest, random) is { } tensor) state[spec.Name] = OnDevice(tensor);
            var quantization = KbitRecipe.ConfigOf(_arguments);
            var model = LlavaModel.FromState(config, state, quantization is null ? null : new ModelQuantizer(quantization).Store);
            model.BaseFingerprint = _fingerprint.Digest();
            model.Tower = TowerSettings.Read(tower);
            model.BesideBase = manifest.Where(s => LlavaModel.PartOf(s.Name) is ModelPart.Projector or ModelPart.ImageNewline && !BaseHas(s.Name))
                .Aggregate(_rows is null ? (ModelPart)0 : ModelPart.Embedding, (parts, s) => parts | LlavaModel.PartOf(s.Name));
            return model;
        }
        catch
        {
            foreach (var tensor in state.Values) tensor.Dispose();
            throw;
        }
    }

    // A checkpoint that was trained or saved with its tower holds it: LLaVA takes the weights from there, and the folder's sizes and picture settings.
    private void PlaceTower(LlavaConfig own, ITensorReader reader, string tower)
    {
        if (VisionTowerFiles.IsInside(_arguments.Model.ModelPath, own, reader.Entries.Keys))
        {
            if (own.UnfreezeVisionTower)
                _warnings.Add($"--vision_tower {tower} gives sizes and picture settings alone: the base holds a tower that was trained with it (unfreeze_mm_vision_tower), and its weights are taken");
            return;
        }
        Place(Open(tower), key => key.StartsWith("vision_model.", StringComparison.Ordinal) ? ModelManifest.TowerPrefix + key : null);
    }

    private void PlaceProjector(string path, IReadOnlyList<TensorSpec> manifest, bool usesStartEnd)
    {
        var file = Keep(TensorFiles.Open(path));
        ProjectorSource.Check(file, path, manifest, wantsRows: usesStartEnd);
        bool newline = manifest.Any(s => s.Name == ProjectorSource.Newline);
        Place(file, key => ProjectorSource.NameOf(key) is { } name && (name != ProjectorSource.Newline || newline) ? name : null);
        if (ProjectorSource.EmbeddingKey(file) is not { } key) return;
        if (usesStartEnd)
            _rows = file;
        else
            _warnings.Add($"the rows of start and end ids in {path} are not taken: --mm_use_im_start_end is False");
    }

    // LLaVA draws the parameter for a language model only; on a LLaVA that has none its own run ends at the first picture.
    private void RequireNewline(LlavaConfig own, LlavaConfig config)
    {
        if (own.HasVision && config.HasImageNewline && !_places.ContainsKey(ProjectorSource.Newline))
            throw new TrainingOptionsException(["--mm_patch_merge_type spatial_unpad ends each row of a picture with image_newline, and the base was trained without; "
                + "give --mm_patch_merge_type flat or spatial, or start from the language model"]);
    }

    private void PlanTokens(LlavaConfig own)
    {
        if (!_arguments.Model.UseImagePatchToken && !ImageTokens.UsesStartEnd(_arguments, own)) return;
        var before = LlamaTokenizer.FromFolder(_arguments.Model.ModelPath);
        _addedTokens = ImageTokens.Extend(before, _arguments, own).Count - before.Count;
        _addsPatch = _arguments.Model.UseImagePatchToken && before.IdOf(ImageTokens.Patch) is null;
    }

    private LlavaConfig Describe(LlavaConfig own, VisionConfig vision, string tower, VisionPlan plan)
    {
        var a = _arguments;
        var document = own.ToJson();
        document["model_type"] = "llava_llama";
        document["mm_vision_tower"] = tower;
        document["use_mm_proj"] = true;
        document["mm_projector_type"] = plan.ProjectorType;
        document["mm_hidden_size"] = vision.HiddenSize;
        document["mm_vision_select_layer"] = plan.SelectLayer;
        document["mm_vision_select_feature"] = plan.SelectFeature;
        document["mm_patch_merge_type"] = plan.PatchMergeType;
        document["mm_use_im_start_end"] = plan.UsesStartEnd;
        document["mm_use_im_patch_token"] = a.Model.UseImagePatchToken;
        document["image_aspect_ratio"] = a.Data.ImageAspectRatio ?? "square";
        document["tokenizer_padding_side"] = "right";
        if (a.Training.MaxLength is int length) document["tokenizer_model_max_length"] = length;
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
        bool projector = spec.Name.StartsWith(ProjectorSource.Prefix, StringComparison.Ordinal);
        if (!_places.TryGetValue(spec.Name, out var place))
            return projector ? DrawProjector(spec, all, random) : spec.Name == ProjectorSource.Newline ? DrawNewline(spec, random) : null;
        var dtype = projector && !BaseHas(spec.Name) ? NewProjectorDtype : DtypeOf(spec.Name);
        var tensor = place.Reader.Map(place.Key);
        Remember(spec.Name, place.Reader, tensor);
        if (tensor.dtype != dtype)
        {
            using var stored = tensor;
            tensor = stored.to(dtype).DetachFromDisposeScope();
        }
        bool table = spec.Name is ProjectorSource.Embedding or "lm_head.weight";
        if (table && _addedTokens > 0)
        {
            using var before = tensor;
            tensor = Grow(before, spec.Shape[0], random);
        }
        return _rows is not null && spec.Name == ProjectorSource.Embedding ? WithTrainedRows(tensor) : tensor;
    }

    private Tensor OnDevice(Tensor tensor)
    {
        if (_device.type == DeviceType.CPU) return tensor;
        using (tensor) return tensor.to(_device).DetachFromDisposeScope();
    }

    /// <summary>The table with the rows of the start and end ids, its last two, as stage 1 trained them: the file has these two, or a whole table.</summary>
    private Tensor WithTrainedRows(Tensor table)
    {
        const int rows = 2;
        using var given = table;
        using var scope = NewDisposeScope();
        var trained = _rows!.Load(ProjectorSource.EmbeddingKey(_rows)!);
        bool fits = trained.shape is [_, var width] && width == table.shape[1] && (trained.shape[0] == rows || trained.shape[0] == table.shape[0]);
        if (!fits)
            throw new CheckpointMismatchException(_arguments.Model.ProjectorWeights!, [], [],
                [$"{ProjectorSource.Embedding}: the file has ({string.Join(", ", trained.shape)}), the model wants ({string.Join(", ", table.shape)}), or its last {rows} rows alone"],
                "Give the file of the first stage of this base, or --mm_use_im_start_end False.");
        return cat([table.narrow(0, 0, table.shape[0] - rows), trained.narrow(0, trained.shape[0] - rows, rows).to(table.dtype)], 0).DetachFromDisposeScope();
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
        if (!name.StartsWith(ProjectorSource.Prefix, StringComparison.Ordinal) || from == _readers[0])
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

    private Tensor DrawNewline(TensorSpec spec, Generator random)
        => randn([.. spec.Shape], ScalarType.Float32, generator: random).mul_(1 / Math.Sqrt(spec.Shape[0])).to(DtypeOf(spec.Name)).DetachFromDisposeScope();

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
