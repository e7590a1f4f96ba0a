using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Writes a model as a checkpoint folder: dense weights as they are, quantised ones as bitsandbytes stores them.</summary>
internal sealed class CheckpointWriter
{
    private readonly LlavaModel _model;
    private readonly LlavaConfig _config;
    private readonly SavePretrainedOptions _options;
    private readonly Dictionary<string, FrozenLinear> _linears;
    private readonly bool _foreign;

    /// <exception cref="AdapterStateException">The model carries adapters.</exception>
    public CheckpointWriter(LlavaModel model, SavePretrainedOptions options)
    {
        _model = model;
        _options = options;
        _config = ConfigOf(model);
        _foreign = _config.IsHuggingFace;
        var modules = ModuleTree.Modules(model).ToList();
        if (modules.FirstOrDefault(m => m.Module is IAdapterHost) is { Module: not null } host)
            throw new AdapterStateException($"The model cannot be saved as a checkpoint while it carries adapters ({host.Path}). "
                + "Merge them into it (MergeAndUnload) or take them off (Unload) first; PeftModel.Save writes adapters alone.");
        _linears = modules.Where(m => m.Module is FrozenLinear).ToDictionary(m => m.Path, m => (FrozenLinear)m.Module, StringComparer.Ordinal);
    }

    // Where head or embedding was trained as a copy of its own they are tied no longer, and a reader that ties it again would lose what was trained.
    private static LlavaConfig ConfigOf(LlavaModel model)
    {
        const string field = "tie_word_embeddings";
        var config = model.Config;
        if (!config.Language.TieWordEmbeddings || model.TiesEmbeddings) return config;
        config = config.With(field, false);
        return config.IsHuggingFace ? config.WithText(field, false) : config;
    }

    /// <summary>Writes the folder's files.</summary>
    public IReadOnlyList<string> Write(string folder, CancellationToken cancellation)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var config = PythonJson.Write(Config()) + "\n";
        var tensors = Tensors();
        cancellation.ThrowIfCancellationRequested();
        var names = ShardedWriter.Write(folder, tensors, maxShardBytes: _options.MaxShardBytes, cancellation: cancellation);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), config);
        string? from = _options.CompanionFolder switch { null => _config.Folder, "" => null, var given => given };
        CompanionFiles.Write(_config, from, folder);
        VisionTowerFiles.Write(_model, from, folder);
        if (_options.Tokenizer is { } tokenizer) TokenizerFiles.Write(tokenizer, folder, _config);
        else if (from is not null) TokenizerFiles.Copy(from, folder, _config);
        return [.. names, "config.json"];
    }

    private List<KeyValuePair<string, Tensor>> Tensors()
    {
        var state = _model.state_dict();
        var tensors = new List<KeyValuePair<string, Tensor>>();
        foreach (var spec in ModelManifest.Of(_config))
        {
            int dot = spec.Name.LastIndexOf('.');
            string path = dot < 0 ? "" : spec.Name[..dot], leaf = spec.Name[(dot + 1)..];
            if (_linears.GetValueOrDefault(path) is { } linear && IsPacked(linear))
            {
                // With the weight comes all that the layer stores, its bias too.
                if (leaf == "weight") tensors.AddRange(BitsandbytesKeys.Write(ToFile(path), linear).Select(t => KeyValuePair.Create(t.Name, t.Value)));
            }
            else
            {
                tensors.Add(KeyValuePair.Create(ToFile(spec.Name), (spec.Name == "lm_head.weight" && _model.BorrowedHead is { } borrowed ? borrowed : state[spec.Name]).cpu()));
            }
        }
        return tensors;
    }

    private string ToFile(string name) => _foreign ? HuggingFaceKeys.ToExternal(name, _options.KeyStyle) : name;

    private JsonObject Config()
    {
        var document = _config.ToJson();
        document.Remove("quantization_config");
        if (Quantization() is { } quantization) document["quantization_config"] = QuantizationConfigJson.Write(quantization);
        document[document.ContainsKey("dtype") ? "dtype" : "torch_dtype"] = SavedConfig.NameOf(_model.Dtype);
        return document;
    }

    /// <summary>The settings that read the packed layers as they are; null if there is none.</summary>
    /// <exception cref="QuantizationConfigException">Layers are packed in more than one way, for which a checkpoint has no words.</exception>
    private QuantizationConfig? Quantization()
    {
        var kinds = _linears.Values.Where(IsPacked).Select(KindOf).Distinct().ToList();
        if (kinds.Count == 0) return null;
        if (kinds.Count > 1)
            throw new QuantizationConfigException("config.json", [$"layers are quantised in {kinds.Count} ways ({string.Join("; ", kinds.Select(Describe))}), and a checkpoint can name one"]);
        return kinds[0] with { SkipModules = SkipModules() };
    }

    private static bool IsPacked(FrozenLinear layer) => layer is FourBitLinear or Int8Linear;

    private static QuantizationConfig KindOf(FrozenLinear layer) => layer switch
    {
        FourBitLinear four => new QuantizationConfig
        {
            Bits = 4, QuantType = four.QuantType, BlockSize = four.BlockSize, DoubleQuantization = four.DoubleQuantized, ComputeDtype = four.ComputeDtype,
        },
        _ => QuantizationConfig.Int8(((Int8Linear)layer).Threshold),
    };

    private static string Describe(QuantizationConfig kind)
        => kind.Bits == 8 ? $"int8 threshold {kind.Threshold}" : $"{kind.QuantType} blocks of {kind.BlockSize}{(kind.DoubleQuantization ? " double" : "")} computed in {kind.ComputeDtype?.ToString() ?? "the input's dtype"}";

    /// <summary>The dense linear layers in transformers' words: a whole part where nothing of it is packed.</summary>
    private List<string> SkipModules()
    {
        var skipped = new List<string>();
        string[] parts = ["model.mm_projector", "model.vision_tower", "lm_head"];
        var dense = _linears.Where(l => !IsPacked(l.Value)).Select(l => l.Key).ToList();
        foreach (string part in parts)
        {
            bool Inside(string path) => path == part || path.StartsWith(part + ".", StringComparison.Ordinal);
            if (!dense.Exists(Inside) || _linears.Any(l => Inside(l.Key) && IsPacked(l.Value))) continue;
            skipped.Add(ToModuleName(part));
            dense.RemoveAll(Inside);
        }
        skipped.AddRange(dense.Select(ToModuleName));
        return skipped;
    }

    private string ToModuleName(string path)
        => !_foreign || path == "model.vision_tower" ? path : HuggingFaceKeys.ToExternal(path, HuggingFaceKeyStyle.ModuleTree5);
}
