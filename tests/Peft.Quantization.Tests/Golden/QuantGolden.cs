using System.IO.Enumeration;
using System.Text.Json;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>One case of the area <c>bitsandbytes</c> with its inputs, expected tensors and tolerance rules.</summary>
internal sealed class QuantGolden : IDisposable
{
    public const string Area = "bitsandbytes";

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly JsonElement _tolerance;

    public QuantGolden(string folder)
    {
        Case = new GoldenCase(folder);
        Settings = Case.Json.GetProperty("settings");
        _tolerance = Case.Json.GetProperty("tolerance");
        Inputs = Read("inputs");
        Expected = Read("expected");
    }

    public GoldenCase Case { get; }

    public JsonElement Settings { get; }

    public Dictionary<string, Tensor> Inputs { get; }

    public Dictionary<string, Tensor> Expected { get; }

    public static IEnumerable<TheoryDataRow<string>> Rows(params string[] kinds)
        => Goldens.Rows(Area, c => kinds.Contains(c.Kind));

    public static ScalarType Dtype(string name) => name switch
    {
        "fp32" or "float32" => ScalarType.Float32,
        "bf16" or "bfloat16" => ScalarType.BFloat16,
        "fp16" or "float16" => ScalarType.Float16,
        _ => throw new ArgumentException($"dtype '{name}'"),
    };

    public string String(string name) => Settings.GetProperty(name).GetString()!;

    public string? StringOrNull(string name)
        => Settings.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    public int Int(string name) => Settings.GetProperty(name).GetInt32();

    public double Double(string name) => Settings.GetProperty(name).GetDouble();

    public bool Flag(string name) => Settings.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.True;

    /// <summary>The first rule whose glob matches.</summary>
    public JsonElement Rule(string name)
    {
        if (_tolerance.TryGetProperty(name, out var own)) return own;
        foreach (var rule in _tolerance.EnumerateObject())
            if (rule.Name != "reason" && FileSystemName.MatchesSimpleExpression(rule.Name, name, ignoreCase: false)) return rule.Value;
        throw new InvalidOperationException($"{Case.Name}: no tolerance for {name}.");
    }

    public bool IsInfo(string name) => Rule(name).TryGetProperty("info_only", out _);

    /// <summary>Compares with the expected tensor of that name, by its rule.</summary>
    public void Check(string name, Tensor got) => Check(name, Expected[name], got, Rule(name));

    /// <summary>How far the peers move for a quantity, by its key in <c>isa_spread</c>.</summary>
    public IsaSpread Spread(string key) => IsaSpread.Of(Case, key);

    public void Check(string name, Tensor expected, Tensor got, JsonElement rule)
    {
        string what = $"{Case.Name}: {name}";
        if (rule.TryGetProperty("info_only", out _)) return;
        if (rule.TryGetProperty("exact_any_of", out var names))
        {
            Assert.True(names.EnumerateArray().Any(n => SameBytes(Expected[n.GetString()!], got)),
                $"{what}: equal to none of {names}: {Difference(expected, got)}");
            return;
        }
        if (rule.TryGetProperty("fp4_zero_sign_free", out _) && StringOrNull("quant_type") == "fp4")
        {
            Assert.True(SameBytes(WithoutZeroSign(expected), WithoutZeroSign(got)), $"{what}: {Difference(expected, got)}");
            return;
        }
        if (rule.TryGetProperty("exact", out _))
        {
            Assert.True(SameBytes(expected, got), $"{what}: {Difference(expected, got)}");
            return;
        }
        if (rule.TryGetProperty("atol", out var atol))
        {
            TensorAssert.Close(expected, got, atol.GetDouble(), rule.GetProperty("rtol").GetDouble(), what, Spread(name));
            return;
        }
        if (rule.TryGetProperty("relative_to_max_abs", out var relative))
        {
            Assert.True(expected.dtype == got.dtype, $"{what}: expected dtype {expected.dtype}, got {got.dtype}.");
            TensorAssert.Close(expected, got, relative.GetDouble() * expected.abs().max().to(ScalarType.Float64).ToDouble(), 0, what, Spread(name));
            return;
        }
        if (rule.TryGetProperty("codes_off_by_one_fraction", out var fraction))
        {
            var difference = (expected.to(ScalarType.Int32) - got.to(ScalarType.Int32)).abs();
            Assert.True(difference.max().ToInt32() <= 1, $"{what}: a code is off by {difference.max().ToInt32()}.");
            Assert.True(difference.sum().ToInt64() <= fraction.GetDouble() * expected.numel(), $"{what}: {difference.sum().ToInt64()} codes differ.");
            return;
        }
        Assert.Fail($"{what}: rule {rule} is not understood.");
    }

    public static bool SameBytes(Tensor expected, Tensor got)
        => expected.dtype == got.dtype && expected.shape.SequenceEqual(got.shape)
            && (expected.is_floating_point()
                ? (expected.eq(got) | (expected.isnan() & got.isnan())).all().ToBoolean() && SameZeroSigns(expected, got)
                : expected.eq(got).all().ToBoolean());

    /// <summary>The bytes of a packed weight as (n, 1) uint8, whatever dtype it is stored as.</summary>
    public static Tensor AsBytes(Tensor packed)
        => packed.dtype == ScalarType.Byte ? packed : tensor(packed.contiguous().bytes.ToArray()).view(-1, 1);

    /// <summary>The nibble 8 (minus zero) read as 0.</summary>
    public static Tensor WithoutZeroSign(Tensor packed)
    {
        var high = packed.bitwise_right_shift(4);
        var low = packed.bitwise_and(15);
        return high.masked_fill(high == 8, 0) * 16 + low.masked_fill(low == 8, 0);
    }

    public void Dispose() => _scope.Dispose();

    private static bool SameZeroSigns(Tensor expected, Tensor got)
        => expected.signbit().eq(got.signbit()).logical_or(expected.isnan()).all().ToBoolean();

    private static string Difference(Tensor expected, Tensor got)
    {
        if (expected.dtype != got.dtype) return $"dtype {expected.dtype} against {got.dtype}";
        if (!expected.shape.SequenceEqual(got.shape))
            return $"shape ({string.Join(", ", expected.shape)}) against ({string.Join(", ", got.shape)})";
        if (expected.numel() == 0) return "nothing";
        var different = expected.ne(got).reshape(-1);
        long first = different.to(ScalarType.Byte).argmax().ToInt64();
        return $"{different.sum().ToInt64()} of {different.numel()} differ, first at {first}: expected {expected.reshape(-1)[first].to(ScalarType.Float64).ToDouble():G9}, "
            + $"got {got.reshape(-1)[first].to(ScalarType.Float64).ToDouble():G9}";
    }

    private Dictionary<string, Tensor> Read(string file)
    {
        if (!Case.Json.GetProperty("files").TryGetProperty(file, out var relative)) return [];
        string path = relative.GetString()!;
        if (!path.EndsWith(".safetensors", StringComparison.Ordinal)) return [];
        using var reader = Case.Tensors(path);
        var tensors = new Dictionary<string, Tensor>();
        foreach (string name in reader.Entries.Keys)
        {
            tensors[name] = reader.Load(name);
            _scope.Attach(tensors[name]);
        }
        return tensors;
    }
}
