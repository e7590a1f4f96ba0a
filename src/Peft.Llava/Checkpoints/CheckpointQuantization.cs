using System.Text.Json;
using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What a load has to do with quantisation: layers quantised on the way in, or found packed in the checkpoint.</summary>
internal sealed class CheckpointQuantization
{
    private const string WeightEnding = ".weight";
    private readonly ModelQuantizer? _making;
    private readonly ModelQuantizer? _reading;
    private readonly ScalarType _dtype;

    private CheckpointQuantization(ModelQuantizer? making, ModelQuantizer? reading, ScalarType dtype)
        => (_making, _reading, _dtype) = (making, reading, dtype);

    /// <summary>Nothing is quantised.</summary>
    public static CheckpointQuantization None { get; } = new(null, null, ScalarType.Float32);

    /// <summary>The storage of layers to be quantised, or null.</summary>
    public LinearStorage? Store => _making is null ? null : _making.Store;

    /// <summary>Looks at the folder's settings and the options.</summary>
    /// <exception cref="QuantizationConfigException">The settings cannot be, or the checkpoint is quantised already and is to be so again.</exception>
    public static CheckpointQuantization Of(string folder, LlavaConfig config, LlavaLoadOptions options)
    {
        var dtype = options.Dtype ?? ScalarType.Float16;
        string file = Path.Combine(folder, "config.json");
        if (File.Exists(file))
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(file));
            if (json.RootElement.TryGetProperty("quantization_config", out var stored) && stored.ValueKind == JsonValueKind.Object)
            {
                if (options.Quantization is not null)
                    throw new QuantizationConfigException(file, ["the checkpoint is quantised already; load it without Quantization, or take the original"]);
                return new CheckpointQuantization(null, new ModelQuantizer(QuantizationConfigJson.Read(stored, file)), dtype);
            }
        }
        if (options.Quantization is not { } wanted) return None;
        // transformers' rule speaks of transformers' module paths.
        bool foreign = wanted.SkipRule == SkipRule.Transformers5 && config.Layout is CheckpointLayout.HuggingFace or CheckpointLayout.HuggingFaceNext;
        return new CheckpointQuantization(
            new ModelQuantizer(wanted, foreign ? path => HuggingFaceKeys.ToExternal(path, HuggingFaceKeyStyle.ModuleTree5) : null), null, dtype);
    }

    /// <summary>Whether a tensor of the checkpoint is a statistic of a packed weight, not a tensor of the model.</summary>
    public bool IsStatistic(string key) => _reading is not null && BitsandbytesKeys.IsStatistic(key, out _);

    /// <summary>The shape of a tensor in full.</summary>
    /// <exception cref="QuantStateException">A packed weight's state is missing or cannot be read.</exception>
    public IReadOnlyList<long> ShapeOf(ITensorReader reader, string key)
        => _reading is not null && key.EndsWith(WeightEnding, StringComparison.Ordinal)
            ? BitsandbytesKeys.ShapeOf(reader, key[..^WeightEnding.Length])
            : reader.Entries[key].Shape;

    /// <summary>The layer that the checkpoint holds packed, or null (nothing was taken then).</summary>
    public FrozenLinear? Read(ITensorReader reader, string key, string path, Tensor? bias, Device? device)
    {
        var layer = _reading?.Read(reader, key[..^WeightEnding.Length], path, _dtype, bias);
        if (layer is not null && device is not null) layer.to(device);
        return layer;
    }
}
