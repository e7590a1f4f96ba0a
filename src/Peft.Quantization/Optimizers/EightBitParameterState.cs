using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The state of one parameter, in bitsandbytes' layout.</summary>
/// <param name="Index">The parameter's place, counted over all groups.</param>
/// <param name="Step">Updates made.</param>
/// <param name="Tensors">state1, state2, absmax1, absmax2, qmap1, qmap2, as far as there are any.</param>
public sealed record EightBitParameterState(int Index, int Step, IReadOnlyDictionary<string, Tensor> Tensors)
{
    private const string Prefix = "state.";

    /// <summary>States as named tensors for a file: <c>state.0.step</c>, <c>state.0.__bnb_optimizer_quant_state__.state1</c>, …</summary>
    /// <param name="states">The states.</param>
    /// <returns>The states' own tensors and fresh step counts, in the current dispose scope.</returns>
    public static IReadOnlyList<NamedTensor> ToTensors(IEnumerable<EightBitParameterState> states)
    {
        ArgumentNullException.ThrowIfNull(states);
        return
        [
            .. states.SelectMany(s => s.Tensors.Select(t => new NamedTensor($"{Prefix}{s.Index}.{EightBitOptimizer.NestedName}.{t.Key}", t.Value))
                .Prepend(new NamedTensor($"{Prefix}{s.Index}.step", tensor((long)s.Step)))),
        ];
    }

    /// <summary>Reads states from a file that holds what <see cref="ToTensors"/> gives; other tensors in it are passed over.</summary>
    /// <param name="reader">The file.</param>
    /// <returns>Fresh tensors, detached from dispose scopes; the caller disposes them.</returns>
    /// <exception cref="QuantStateException">A step count is missing.</exception>
    public static IReadOnlyList<EightBitParameterState> FromReader(ITensorReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        var states = new SortedDictionary<int, Dictionary<string, Tensor>>();
        foreach (string key in reader.Entries.Keys)
        {
            string[] parts = key.Split('.');
            if (parts.Length != 4 || parts[0] + "." != Prefix || parts[2] != EightBitOptimizer.NestedName || !int.TryParse(parts[1], out int index)) continue;
            if (!states.TryGetValue(index, out var tensors)) states[index] = tensors = [];
            tensors[parts[3]] = reader.Load(key);
        }
        return [.. states.Select(s => new EightBitParameterState(s.Key, ReadStep(reader, s.Key), s.Value))];
    }

    private static int ReadStep(ITensorReader reader, int index)
    {
        string key = $"{Prefix}{index}.step";
        if (!reader.Entries.ContainsKey(key)) throw QuantStateException.OfOptimizer(index, $"{key} is missing from {reader.Source}.");
        using var step = reader.Load(key);
        return (int)step.to(ScalarType.Int64).item<long>();
    }
}
