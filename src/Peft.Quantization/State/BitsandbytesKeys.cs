using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>How a module's weight stands in a checkpoint.</summary>
public enum StoredForm
{
    /// <summary>A plain tensor, or none of that name.</summary>
    Plain,

    /// <summary>bitsandbytes' 4-bit codes and statistics.</summary>
    FourBit,

    /// <summary>LLM.int8 codes and row maxima.</summary>
    Int8,
}

/// <summary>
/// The names under which bitsandbytes stores quantised weights, read and written. For a module M: 4-bit <c>M.weight</c>,
/// <c>M.weight.absmax</c>, <c>M.weight.quant_map</c>, <c>M.weight.nested_absmax</c>, <c>M.weight.nested_quant_map</c> and
/// <c>M.weight.quant_state.bitsandbytes__nf4</c> (JSON as bytes); int8 <c>M.weight</c>, <c>M.SCB</c>, <c>M.weight_format</c>.
/// </summary>
public static class BitsandbytesKeys
{
    private const string StateMark = ".weight.quant_state.bitsandbytes__";
    private static readonly string[] StatisticEndings =
        [".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map", ".SCB", ".weight_format"];

    /// <summary>How a module's weight is stored.</summary>
    /// <param name="reader">The checkpoint.</param>
    /// <param name="module">The module's name in it.</param>
    public static StoredForm FormOf(ITensorReader reader, string module)
    {
        ArgumentNullException.ThrowIfNull(reader);
        var entries = reader.Entries;
        if (entries.ContainsKey(module + ".SCB")) return StoredForm.Int8;
        if (entries.TryGetValue(module + ".weight", out var weight) && weight.Dtype == ScalarType.Int8) return StoredForm.Int8;
        bool statistics = entries.ContainsKey(module + ".weight.absmax") || StateKey(entries.Keys, module) is not null;
        return statistics || weight?.Dtype == ScalarType.Byte ? StoredForm.FourBit : StoredForm.Plain;
    }

    /// <summary>Whether a name of a checkpoint belongs to the statistics of a quantised weight, and which module's.</summary>
    /// <param name="key">A tensor's name.</param>
    /// <param name="module">The module's name.</param>
    public static bool IsStatistic(string key, out string module)
    {
        ArgumentNullException.ThrowIfNull(key);
        int at = key.IndexOf(StateMark, StringComparison.Ordinal);
        string? ending = Array.Find(StatisticEndings, e => key.EndsWith(e, StringComparison.Ordinal));
        module = at >= 0 ? key[..at] : ending is not null ? key[..^ending.Length] : "";
        return module.Length > 0;
    }

    /// <summary>The shape that a module's weight has in full.</summary>
    /// <param name="reader">The checkpoint.</param>
    /// <param name="module">The module's name in it.</param>
    /// <exception cref="QuantStateException">It is a 4-bit weight without a readable state.</exception>
    /// <exception cref="TensorNotFoundException">There is no such weight.</exception>
    public static IReadOnlyList<long> ShapeOf(ITensorReader reader, string module)
    {
        string weight = module + ".weight";
        if (FormOf(reader, module) != StoredForm.FourBit)
            return reader.Entries.TryGetValue(weight, out var entry) ? entry.Shape : throw new TensorNotFoundException(reader.Source, weight, [.. reader.Entries.Keys]);
        string key = StateKey(reader.Entries.Keys, module) ?? throw Missing(reader, weight, module + StateMark + "<type>");
        using var json = reader.Load(key);
        return QuantStateJson.Parse(weight, json.bytes).Shape;
    }

    /// <summary>Reads a 4-bit weight.</summary>
    /// <param name="reader">The checkpoint.</param>
    /// <param name="module">The module's name in it.</param>
    /// <returns>The weight; the caller disposes it.</returns>
    /// <exception cref="QuantStateException">Statistics are missing, truncated or contradictory.</exception>
    /// <exception cref="QuantMapException">The codes were made with another table.</exception>
    public static PackedWeight ReadFourBit(ITensorReader reader, string module)
    {
        ArgumentNullException.ThrowIfNull(reader);
        string weight = module + ".weight";
        string? key = StateKey(reader.Entries.Keys, module);
        if (!reader.Entries.ContainsKey(weight)) throw Missing(reader, weight, weight);
        if (key is null) throw Missing(reader, weight, module + StateMark + "<type>");
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var state = QuantStateJson.Parse(weight, Load(scope, reader, weight, key).bytes);
        if (!key.EndsWith("__" + state.Type.Name, StringComparison.Ordinal))
            throw new QuantStateException(weight, $"its quant_state is of type '{state.Type}' but is called {key}.");
        RequireTable(state.Type, Load(scope, reader, weight, weight + ".quant_map"), weight + ".quant_map");
        var absmax = Load(scope, reader, weight, weight + ".absmax");
        Tensor? nested = null;
        if (state.NestedOffset is not null)
        {
            EightBitMap.DynamicSigned.RequireEqual(Load(scope, reader, weight, weight + ".nested_quant_map"), weight + ".nested_quant_map");
            nested = Load(scope, reader, weight, weight + ".nested_absmax");
        }
        var codes = AsBytes(Load(scope, reader, weight, weight));
        return new PackedWeight(codes, absmax, nested, state.NestedOffset ?? 0f, state.Type, state.BlockSize, state.Dtype, state.Shape, weight);
    }

    /// <summary>Reads an int8 weight.</summary>
    /// <param name="reader">The checkpoint.</param>
    /// <param name="module">The module's name in it.</param>
    /// <returns>(out, in) int8 codes and (out) fp32 maxima, fresh, detached from dispose scopes.</returns>
    /// <exception cref="QuantStateException">The maxima are missing, or the layout is not row by row.</exception>
    public static (Tensor Codes, Tensor Absmax) ReadInt8(ITensorReader reader, string module)
    {
        ArgumentNullException.ThrowIfNull(reader);
        string weight = module + ".weight", format = module + ".weight_format";
        using var scope = NewDisposeScope();
        if (reader.Entries.ContainsKey(format) && Load(scope, reader, weight, format).bytes is var bytes && bytes[0] != 0)
            throw new QuantStateException(weight, $"weight_format is {bytes[0]}; only row by row (0) is known, not the tilings of old GPU kernels.");
        var absmax = Load(scope, reader, weight, module + ".SCB");
        return (Load(scope, reader, weight, weight).DetachFromDisposeScope(), absmax.view(-1).DetachFromDisposeScope());
    }

    /// <summary>The tensors of a quantised layer as bitsandbytes names them; the bias too.</summary>
    /// <param name="module">The module's name in the file.</param>
    /// <param name="layer">A <see cref="FourBitLinear"/> or <see cref="Int8Linear"/>.</param>
    /// <returns>Fresh tensors, in the current dispose scope.</returns>
    /// <exception cref="ArgumentException">Another kind of layer.</exception>
    public static IReadOnlyList<NamedTensor> Write(string module, FrozenLinear layer)
    {
        ArgumentNullException.ThrowIfNull(layer);
        using var noGrad = no_grad();
        var list = new List<NamedTensor>();
        switch (layer)
        {
            case FourBitLinear fourBit:
                AddFourBit(list, module + ".weight", fourBit);
                break;
            case Int8Linear int8:
                list.Add(new(module + ".weight", int8.Codes.cpu().clone()));
                list.Add(new(module + ".SCB", int8.RowMaxima.cpu().clone()));
                list.Add(new(module + ".weight_format", tensor((byte)0)));
                break;
            default:
                throw new ArgumentException($"{layer.GetType().Name} is not stored as bitsandbytes does; write it as a plain tensor.", nameof(layer));
        }
        if (layer.BiasTensor is { } bias) list.Add(new(module + ".bias", bias.detach().cpu().clone()));
        return list;
    }

    private static void AddFourBit(List<NamedTensor> list, string weight, FourBitLinear layer)
    {
        using var packed = layer.ToPacked();
        var state = new QuantStateJson(packed.Type, packed.BlockSize, packed.Dtype, packed.Shape, packed.DoubleQuantized ? packed.NestedOffset : null);
        list.Add(new(weight, packed.Codes.cpu().clone()));
        list.Add(new(weight + ".absmax", packed.Absmax.cpu().clone()));
        list.Add(new(weight + ".quant_map", tensor(FourBitTable.For(packed.Type).Codes.ToArray())));
        if (packed.NestedAbsmax is { } nested)
        {
            list.Add(new(weight + ".nested_absmax", nested.cpu().clone()));
            list.Add(new(weight + ".nested_quant_map", EightBitMap.DynamicSigned.ToTensor()));
        }
        list.Add(new($"{weight}.quant_state.bitsandbytes__{packed.Type.Name}", tensor(state.ToBytes())));
    }

    private static string? StateKey(IEnumerable<string> keys, string module)
    {
        string start = module + StateMark;
        return keys.FirstOrDefault(k => k.StartsWith(start, StringComparison.Ordinal));
    }

    private static Tensor Load(DisposeScope scope, ITensorReader reader, string weight, string key)
    {
        if (!reader.Entries.ContainsKey(key)) throw Missing(reader, weight, key);
        var loaded = reader.Load(key);
        scope.Attach(loaded);
        return loaded;
    }

    private static QuantStateException Missing(ITensorReader reader, string weight, string key)
        => new(weight, $"{key} is missing from {reader.Source}, so the codes cannot be read.");

    private static void RequireTable(QuantType type, Tensor map, string name)
    {
        using var scope = NewDisposeScope();
        if (map.numel() == 16 && map.to(ScalarType.Float32).view(16).eq(tensor(FourBitTable.For(type).Codes.ToArray())).all().ToBoolean()) return;
        throw new QuantMapException($"{name}: the table ({string.Join(", ", map.shape)}) is not bitsandbytes' {type} table. "
            + "The codes were made with another table; convert the file with the library that wrote it.");
    }

    /// <summary>Codes stored under another dtype's name (<c>bnb_4bit_quant_storage</c>) are the same bytes.</summary>
    private static Tensor AsBytes(Tensor codes)
        => codes.dtype == ScalarType.Byte ? codes.view(-1, 1) : tensor(codes.contiguous().bytes.ToArray()).view(-1, 1);
}
