using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Which dtypes of a file fit those of a model.</summary>
public enum DtypePolicy
{
    /// <summary>Any floating-point dtype fits any other and is converted; all others must be equal.</summary>
    ConvertFloats,

    /// <summary>Every dtype must be equal.</summary>
    Exact,
}

/// <summary>What a partial loading did.</summary>
/// <param name="Loaded">The model's names that got their values.</param>
/// <param name="Left">What did not fit, and why; these were not changed.</param>
public sealed record PartialLoadReport(IReadOnlyList<string> Loaded, IReadOnlyList<StateFault> Left);

/// <summary>
/// Fills tensors from a file: all names, shapes and dtypes are compared first, and only if everything fits is anything changed. (TorchSharp's
/// own <c>load_state_dict</c> takes shapes that broadcast.)
/// </summary>
public static class StrictState
{
    /// <summary>Fills all tensors wanted from a file that holds these and no others.</summary>
    /// <param name="reader">The file.</param>
    /// <param name="wanted">The tensors to fill, by the model's names, on any device; they stay the caller's.</param>
    /// <param name="model">What messages call the model.</param>
    /// <param name="dtypes">Which dtypes fit.</param>
    /// <param name="keys">Translates the model's names (ours) into the file's (theirs); null: they are equal.</param>
    /// <param name="cancellation">Ends the loading; tensors before that keep their new values.</param>
    /// <exception cref="StateMismatchException">Something does not fit; nothing was changed.</exception>
    public static void Load(
        ITensorReader reader, IReadOnlyDictionary<string, Tensor> wanted, string model = "the model",
        DtypePolicy dtypes = DtypePolicy.ConvertFloats, KeyMap? keys = null, CancellationToken cancellation = default)
    {
        var (pairs, faults) = Compare(reader, wanted, model, dtypes, keys);
        if (faults.Count > 0) throw new StateMismatchException(reader.Source, model, faults);
        Copy(reader, pairs, cancellation);
    }

    /// <summary>Compares only: throws what <see cref="Load"/> would, and changes nothing.</summary>
    /// <inheritdoc cref="Load"/>
    public static void Check(
        ITensorReader reader, IReadOnlyDictionary<string, Tensor> wanted, string model = "the model",
        DtypePolicy dtypes = DtypePolicy.ConvertFloats, KeyMap? keys = null)
    {
        var (_, faults) = Compare(reader, wanted, model, dtypes, keys);
        if (faults.Count > 0) throw new StateMismatchException(reader.Source, model, faults);
    }

    /// <summary>Fills what fits and leaves the rest as it is.</summary>
    /// <inheritdoc cref="Load"/>
    /// <returns>What was filled and what was left, with the reasons: look at it.</returns>
    public static PartialLoadReport LoadPartial(
        ITensorReader reader, IReadOnlyDictionary<string, Tensor> wanted, string model = "the model",
        DtypePolicy dtypes = DtypePolicy.ConvertFloats, KeyMap? keys = null, CancellationToken cancellation = default)
    {
        var (pairs, faults) = Compare(reader, wanted, model, dtypes, keys);
        Copy(reader, pairs, cancellation);
        return new PartialLoadReport([.. pairs.Select(pair => pair.Ours)], faults);
    }

    private static (List<Pair> Pairs, List<StateFault> Faults) Compare(
        ITensorReader reader, IReadOnlyDictionary<string, Tensor> wanted, string model, DtypePolicy dtypes, KeyMap? keys)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ArgumentNullException.ThrowIfNull(wanted);
        var byFileName = new Dictionary<string, string>();
        var missing = new List<(string Ours, string? Theirs)>();
        foreach (string ours in wanted.Keys)
        {
            string? theirs = keys is null ? ours : keys.ToTheirs(ours);
            if (theirs is null || !reader.Entries.ContainsKey(theirs)) missing.Add((ours, theirs));
            else byFileName.Add(theirs, ours);
        }
        var unexpected = reader.Entries.Keys.Where(name => !byFileName.ContainsKey(name)).ToList();
        var pairs = new List<Pair>();
        var faults = new List<StateFault>();
        foreach (var entry in reader.Entries.Values)
        {
            if (!byFileName.TryGetValue(entry.Name, out string? ours))
                faults.Add(new(StateFaultKind.Unexpected, entry.Name, $"not in {model}", Suggest(faults, entry.Name, missing.Select(m => m.Theirs ?? m.Ours))));
            else if (Mismatch(entry, wanted[ours], dtypes) is { } fault) faults.Add(fault);
            else pairs.Add(new Pair(ours, entry.Name, wanted[ours]));
        }
        foreach (var (ours, theirs) in missing)
            faults.Add(new(StateFaultKind.Missing, ours, "missing from file" + (theirs is null || theirs == ours ? "" : $", where it would be {theirs}"),
                Suggest(faults, theirs ?? ours, unexpected)));
        return (pairs, faults);
    }

    // Thousands of names against thousands would take minutes; whoever reads the first fifty has understood.
    private static string? Suggest(List<StateFault> faults, string name, IEnumerable<string> candidates)
        => faults.Count < 50 ? NearestName.Find(name, candidates) : null;

    private static StateFault? Mismatch(TensorEntry entry, Tensor tensor, DtypePolicy dtypes)
    {
        if (!entry.Shape.SequenceEqual(tensor.shape))
            return new(StateFaultKind.Shape, entry.Name, $"file has ({string.Join(", ", entry.Shape)}), model wants ({string.Join(", ", tensor.shape)})");
        // A byte tensor that stands for another dtype is no number that could be converted or taken for bytes.
        bool same = entry.Dtype == tensor.dtype && (entry.Dtype != ScalarType.Byte || entry.DtypeName == "U8");
        bool converts = dtypes == DtypePolicy.ConvertFloats && IsFloat(entry.Dtype) && IsFloat(tensor.dtype);
        return same || converts ? null : new(StateFaultKind.Dtype, entry.Name, $"file has {entry.DtypeName}, model wants {TensorDtypes.NameOf(tensor.dtype)}");
    }

    private static bool IsFloat(ScalarType dtype)
        => dtype is ScalarType.Float16 or ScalarType.BFloat16 or ScalarType.Float32 or ScalarType.Float64;

    private static void Copy(ITensorReader reader, List<Pair> pairs, CancellationToken cancellation)
    {
        using var noGrad = no_grad();
        foreach (var (_, theirs, tensor) in pairs)
        {
            cancellation.ThrowIfCancellationRequested();
            using var value = reader.Load(theirs);
            tensor.copy_(value);
        }
    }

    private sealed record Pair(string Ours, string Theirs, Tensor Tensor);
}
