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
    private HashSet<string>? _known;
    private HuggingFaceKeyStyle? _style;
    private CheckpointQuantization _quantization = CheckpointQuantization.None;

    private LlavaLoader(string folder, LlavaLoadOptions options) => (_folder, _options) = (folder, options);

    public static LlavaModel Load(string folder, LlavaLoadOptions options)
    {
        ArgumentNullException.ThrowIfNull(folder);
        using var loader = new LlavaLoader(folder, options);
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
            if (!_places.TryGetValue(spec.Name, out var place)) _faults.Missing(spec.Name);
            else _faults.CheckShape(place.Key, spec.Shape, _quantization.ShapeOf(place.Reader, place.Key));
        }
        _faults.ThrowIfAny(_folder);
        var (model, head) = new ModelAssembler(config, Take, _options.Storage ?? _quantization.Store, Stored).Build();
        return new LlavaModel(config, model, head) { BaseFingerprint = _fingerprint.Digest() };
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
        var (reader, key) = _places[name];
        var mapped = reader.Map(key);
        _fingerprint.Add(name, mapped);
        var dtype = DtypeOf(name) ?? mapped.dtype;
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

    private ScalarType? DtypeOf(string name)
        => (LlavaModel.PartOf(name) is ModelPart.Projector or ModelPart.ImageNewline ? _options.ProjectorDtype : null) ?? _options.Dtype;

    private FrozenLinear? Stored(string path, Tensor? bias)
    {
        var (reader, key) = _places[path + ".weight"];
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
        using var loader = new LlavaLoader(folder, new LlavaLoadOptions());
        string tower = loader.TowerFolder(config);
        return (config.WithVision(LlavaConfigJson.LoadVision(tower)), tower);
    }

    private LlavaConfig FindTower(LlavaConfig config, ITensorReader reader)
    {
        if (!config.HasVision || config.Layout != CheckpointLayout.Original) return config;
        string folder = TowerFolder(config);
        config = config.WithVision(LlavaConfigJson.LoadVision(folder));
        bool inside = config.UnfreezeVisionTower && reader.Entries.Keys.Any(k => k.StartsWith(ModelManifest.TowerPrefix, StringComparison.Ordinal));
        if (inside) return config;
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
        string[] tried = _options.VisionTower is not null ? [Path.GetFullPath(name)] : [Path.GetFullPath(Path.Combine(_folder, name))];
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
    private static bool IsUnused(LlavaConfig config, string name)
        => (config.Layout == CheckpointLayout.Original && name.StartsWith(ModelManifest.TowerPrefix, StringComparison.Ordinal) && !config.UnfreezeVisionTower)
            || (config.Language.TieWordEmbeddings && name == "lm_head.weight")
            || (!config.HasImageNewline && name == "model.image_newline");
}
