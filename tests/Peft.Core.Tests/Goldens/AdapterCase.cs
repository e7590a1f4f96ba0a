using System.Text.Json;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>What the recorded cases of the area "peft" have in common.</summary>
internal static class AdapterCase
{
    public const string Area = "peft";

    public static ScalarType Dtype(string name) => name switch
    {
        "float32" => ScalarType.Float32,
        "bfloat16" => ScalarType.BFloat16,
        "float16" => ScalarType.Float16,
        "int64" => ScalarType.Int64,
        _ => throw new ArgumentException(name, nameof(name)),
    };

    public static ReferenceModel LoadBase(GoldenCase golden, ScalarType? dtype = null) => ReferenceModel.Load(
        golden.PathOf(golden.Json.GetProperty("base").GetString()!), golden.Json.GetProperty("arch").GetString()!,
        dtype ?? Dtype(golden.Json.GetProperty("base_dtype").GetString()!));

    /// <summary>All tensors of a file, under the current dispose scope; floating ones converted.</summary>
    public static Dictionary<string, Tensor> Tensors(GoldenCase golden, string file, ScalarType? dtype = null)
    {
        using var reader = golden.Tensors(file);
        var all = new Dictionary<string, Tensor>();
        foreach (string name in reader.Entries.Keys)
        {
            var tensor = reader.Load(name);
            CurrentDisposeScope?.Attach(tensor);
            all[name] = dtype is { } wanted && is_floating_point(tensor) ? tensor.to(wanted) : tensor;
        }
        return all;
    }

    /// <summary>The case's tolerance for a group, both limits where there are two, for a tensor of its expected ones.</summary>
    public static void Compare(GoldenCase golden, string group, Tensor expected, Tensor got, string name)
    {
        var tolerance = golden.Json.GetProperty("tolerance").GetProperty(group);
        var spread = IsaSpread.Of(golden, name);
        TensorAssert.Close(expected, got, tolerance.GetProperty("atol").GetDouble(), tolerance.GetProperty("rtol").GetDouble(), name, spread);
        if (tolerance.TryGetProperty("rms", out var rms)) TensorAssert.Rms(expected, got, rms.GetDouble(), name, spread);
    }

    /// <summary>Outputs are compared where the attention mask is 1.</summary>
    public static void CompareOutputs(GoldenCase golden, Dictionary<string, Tensor> inputs, Tensor expected, Tensor got, string name)
    {
        if (!inputs.TryGetValue("attention_mask", out var mask))
        {
            Compare(golden, "outputs", expected, got, name);
            return;
        }
        Assert.True(expected.shape.SequenceEqual(got.shape), $"{name}: expected shape ({string.Join(", ", expected.shape)}), got ({string.Join(", ", got.shape)}).");
        var valid = mask.to(ScalarType.Bool);
        Compare(golden, "outputs", expected[valid], got[valid], name);
    }

    /// <summary>The base's parameter behind all wrapping, by its original name.</summary>
    public static Tensor BaseParameter(nn.Module root, string name)
    {
        string[] parts = name.Split('.');
        var module = root;
        foreach (string part in parts[..^1])
        {
            module = module.named_children().Single(c => c.name == part).module;
            while (module is IAdapterHost host) module = host.Original;
        }
        return module.named_parameters(recurse: false).Single(p => p.name == parts[^1]).parameter;
    }

    public static AdapterOptions Options(GoldenCase golden, bool trainable = false) => new()
    {
        UpcastToFloat32 = !golden.Json.TryGetProperty("autocast_adapter_dtype", out var upcast) || upcast.GetBoolean(),
        Trainable = trainable,
    };

    public static string? Text(JsonElement step, string name) => step.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    public static string[]? Names(JsonElement step, string name)
        => step.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray().Select(e => e.GetString()!)] : null;

    public static double? Number(JsonElement step, string name) => step.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : null;

    public static bool Flag(JsonElement step, string name) => step.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.True;
}
