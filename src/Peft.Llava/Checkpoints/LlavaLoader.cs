using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Loads a checkpoint: finds every tensor first, complains about all that does not fit, then builds.</summary>
internal sealed class LlavaLoader : IDisposable
{
    private const string TowerOwnPrefix = "vision_model.";
    private readonly string _folder;
    private readonly LlavaLoadOptions _options;
    private readonly List<ITensorReader> _readers = [];
    private readonly Dictionary<string, (ITensorReader Reader, string Key)> _places = [];
    private readonly CheckpointFaults _faults = new();
    private readonly SampledFingerprint _fingerprint = new();
    private readonly Dictionary<string, long> _rows = [];
    private HashSet<string>? _known;
    private HuggingFaceKeyStyle? _style;
    private readonly BaseOverlay? _overlay;
    private CheckpointQuantization _quantization = CheckpointQuantization.None;
    private TowerSettings? _tower;
    private bool _towerInside;

    private LlavaLoader(string folder, LlavaLoadOptions options, BaseOverlay? overlay) => (_folder, _options, _overlay) = (folder, options, overlay);

    /// <summary>Loads a folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="options">The options.</param>
    /// <param name="overlay">What goes before the folder's own tensors, or fills in for those that it lacks; the folder may then have fewer rows of tokens. Null for nothing.</param>
    public static LlavaModel Load(string folder, LlavaLoadOptions options, BaseOverlay? overlay = null)
    {
        ArgumentNullException.ThrowIfNull(folder);
        using var loader = new LlavaLoader(folder, options, overlay);
        return loader.Load();
    }

    public void Dispose()
    {
        _fingerprint.Dispose();
        _readers.ForEach(r => r.Dispose());
    }

    private LlavaModel Load()
    {
        var config = _options.Config ?? LlavaConfig.Load(_folder);
        var reader = Open(_folder);
        config = FindTower(config, reader);
        if (config.Vision is { } vision) config.FeatureLayer.Resolve(vision.LayerCount);
        _quantization = CheckpointQuantization.Of(_folder, config, _options);
        foreach (string key in reader.Entries.Keys) Place(config, reader, key);
        foreach (var spec in ModelManifest.Of(config))
        {
            if (PlaceOf(spec.Name) is not { } place) _faults.Missing(spec.Name);
            else if (!IsGrown(spec, place)) _faults.CheckShape(place.Key, spec.Shape, _quantization.ShapeOf(place.Reader, place.Key));
        }
        foreach (string name in _overlay?.Keys.Keys.Where(n => !IsKnown(config, n)) ?? []) _faults.Unexpected(name);
        _faults.ThrowIfAny(_folder, _overlay is null ? null : $"What the base {_folder} lacks has to be in {_overlay.Folder}, in mm_projector.bin or {NonLoraTrainables.FileName}, "
            + "and its config.json has to describe the two together.");
        var (model, head) = new ModelAssembler(config, Take, _options.Storage ?? _quantization.Store, Stored).Build();
        return new LlavaModel(config, model, head) { BaseFingerprint = _fingerprint.Digest(), Tower = _tower };
    }

    private (ITensorReader Reader, string Key)? PlaceOf(string name)
        => _overlay?.Keys.TryGetValue(name, out string? key) == true && !HasLastRowsAlone(name, key) ? (_overlay.Reader, key) : _places.TryGetValue(name, out var place) ? place : null;

    /// <summary>Stage 1 may keep the rows of the start and end ids alone.</summary>
    private bool HasLastRowsAlone(string name, string key)
        => name == ProjectorSource.Embedding && _overlay!.Reader.Entries[key].Shape is [2, _] && _places.TryGetValue(name, out var own) && own.Reader.Entries[own.Key].Shape[0] > 2;

    /// <summary>Whether a run has added tokens to the base: their rows come after the base's.</summary>
    private bool IsGrown(TensorSpec spec, (ITensorReader Reader, string Key) place)
    {
        bool grows = _overlay is not null && LlavaModel.PartOf(spec.Name) is ModelPart.Embedding or ModelPart.Head
            && place.Reader.Entries[place.Key].Shape is [var rows, var width] && rows < spec.Shape[0] && width == spec.Shape[1];
        if (grows) _rows[spec.Name] = spec.Shape[0];
        return grows;
    }

    private ITensorReader Open(string folder)
    {
        var reader = TensorFiles.Open(folder);
        _readers.Add(reader);
        return reader;
    }

    /// <summary>One tensor in the dtype and on the device wanted; mapped where nothing has to change.</summary>
    private Tensor Take(string name)
    {
        var (reader, key) = PlaceOf(name)!.Value;
        var mapped = reader.Map(key);
        Remember(name, reader, mapped);
        if (_rows.TryGetValue(name, out long rows))
        {
            // LLaVA's start and end ids begin as the mean; what it draws for <im_patch> stands in no text.
            using var before = mapped;
            mapped = EmbeddingResize.WithMeanRows(before, rows).DetachFromDisposeScope();
        }
        if (_overlay?.Keys.TryGetValue(name, out string? last) == true && HasLastRowsAlone(name, last))
        {
            using var before = mapped;
            using var scope = NewDisposeScope();
            using var noGrad = no_grad();
            mapped = cat([before.narrow(0, 0, before.shape[0] - 2), _overlay.Reader.Load(last).to(before.dtype)], 0).DetachFromDisposeScope();
        }
        var dtype = DtypeOf(name) ?? (reader == _overlay?.File ? BaseDtype : mapped.dtype);
        var device = _options.Device ?? CPU;
        if (dtype == mapped.dtype && device.type == DeviceType.CPU) return mapped;
        using (mapped)
        using (no_grad())
        {
            var converted = mapped.to(dtype, device).DetachFromDisposeScope();
            MappedPages.Release(mapped);
            return converted;
        }
    }

    /// <summary>The base makes the fingerprint: what a run has in its place doesn't change what the base is.</summary>
    private void Remember(string name, ITensorReader from, Tensor tensor)
    {
        if (from != _overlay?.File)
        {
            _fingerprint.Add(name, tensor);
        }
        else if (_places.TryGetValue(name, out var own))
        {
            using var replaced = own.Reader.Map(own.Key);
            _fingerprint.Add(name, replaced);
        }
    }

    // A run's file has the dtype of what learned, float32 perhaps; stored dtypes are the base's.
    private ScalarType BaseDtype
    {
        get
        {
            var (reader, key) = _places["model.norm.weight"];
            using var norm = reader.Map(key);
            return norm.dtype;
        }
    }

    private ScalarType? DtypeOf(string name)
        => (LlavaModel.PartOf(name) is ModelPart.Projector or ModelPart.ImageNewline ? _options.ProjectorDtype : null) ?? _options.Dtype;

    private FrozenLinear? Stored(string path, Tensor? bias)
    {
        var (reader, key) = PlaceOf(path + ".weight")!.Value;
        var stored = _quantization.Read(reader, key, path, bias, _options.Device);
        if (stored is null) return null;
        using var packed = reader.Map(key);
        _fingerprint.Add(path + ".weight", packed);
        return stored;
    }

    /// <summary>A checkpoint's configuration with the sizes of its tower, and the tower's folder where that is not the checkpoint's own.</summary>
    public static (LlavaConfig Config, string? Tower) DescribeTower(string folder, LlavaConfig config)
    {
        if (!config.HasVision || config.Layout != CheckpointLayout.Original) return (config, null);
        using var loader = new LlavaLoader(folder, new LlavaLoadOptions(), null);
        string tower = loader.TowerFolder(config);
        return (config.WithVision(LlavaConfigJson.LoadVision(tower)), tower);
    }

    private LlavaConfig FindTower(LlavaConfig config, ITensorReader reader)
    {
        if (!config.HasVision || config.Layout != CheckpointLayout.Original) return config;
        _towerInside = VisionTowerFiles.IsInside(_folder, config, reader.Entries.Keys) && (config.UnfreezeVisionTower || _options.VisionTower is null);
        if (_towerInside && _options.VisionTower is null && VisionTowerFiles.IsDescribed(_folder))
        {
            _tower = VisionTowerFiles.ReadOwn(_folder);
            return config.WithVision(LlavaConfigJson.LoadVision(Path.Combine(_folder, VisionTowerFiles.Description)));
        }
        string folder = TowerFolder(config);
        _tower = TowerSettings.Read(folder);
        config = config.WithVision(LlavaConfigJson.LoadVision(folder));
        if (_towerInside) return config;
        var tower = Open(folder);
        foreach (string key in tower.Entries.Keys)
        {
            // A full CLIP folder also holds the text tower, projections and a scale; position_ids is a constant that old versions stored.
            if (key.StartsWith(TowerOwnPrefix, StringComparison.Ordinal) && !IsConstant(key)) _places[ModelManifest.TowerPrefix + key] = (tower, key);
        }
        return config;
    }

    private string TowerFolder(LlavaConfig config)
    {
        string name = _options.VisionTower ?? config.VisionTowerName!;
        string[] folders = _overlay is null ? [_folder] : [_overlay.Folder, _folder];
        string[] tried = _options.VisionTower is not null ? [Path.GetFullPath(name)] : VisionTowerFiles.Places(folders, name);
        return Array.Find(tried, t => File.Exists(Path.Combine(t, "config.json"))) ?? throw new VisionTowerNotFoundException(_folder, name, tried);
    }

    private void Place(LlavaConfig config, ITensorReader reader, string key)
    {
        if (IsConstant(key) || _quantization.IsStatistic(key)) return;
        string? name = config.Layout is CheckpointLayout.HuggingFace or CheckpointLayout.HuggingFaceNext
            ? HuggingFaceKeys.ToInternal(key, _style ??= HuggingFaceKeys.Detect(reader.Entries.Keys) ?? HuggingFaceKeyStyle.ModuleTree5)
            : key;
        if (name is null || !IsKnown(config, name)) _faults.Unexpected(key);
        else if (!IsUnused(config, name)) _places.TryAdd(name, (reader, key));
    }

    private static bool IsConstant(string key)
        => key.EndsWith(".position_ids", StringComparison.Ordinal) || key.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);

    private bool IsKnown(LlavaConfig config, string name)
        => (_known ??= [.. ModelManifest.Of(config).Select(s => s.Name)]).Contains(name) || IsUnused(config, name);

    /// <summary>Tensors that a checkpoint may hold although this configuration has no use for them; the reference passes over them as well.</summary>
    private bool IsUnused(LlavaConfig config, string name)
        => (config.Layout == CheckpointLayout.Original && name.StartsWith(ModelManifest.TowerPrefix, StringComparison.Ordinal) && !_towerInside)
            || (config.Language.TieWordEmbeddings && name == "lm_head.weight")
            || (!config.HasImageNewline && name == "model.image_newline");
}
