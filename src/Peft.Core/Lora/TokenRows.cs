using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// An embedding or an output head of which adapters train single rows (PEFT's <c>trainable_token_indices</c>). The parameter
/// <c>token_adapter.trainable_tokens_delta.default</c> holds the new rows themselves, not differences. The head of tied embeddings uses the rows of
/// the embedding and has none of its own.
/// </summary>
public sealed class TokenRows : nn.Module<Tensor, Tensor>, IAdapterHost
{
    private const string Tensor = "token_adapter.trainable_tokens_delta";

    private readonly OrderedDictionary<string, Rows> _rows = [];
    private readonly HashSet<string> _tied = [];             // adapters whose rows belong to the embedding
    private readonly nn.Module<Tensor, Tensor> _original;
    private readonly AdapterContext _context;
    private Tensor? _beforeMerge;

    internal TokenRows(string path, nn.Module<Tensor, Tensor> original, AdapterContext context)
        : base(nameof(TokenRows))
    {
        ModulePath = path;
        _original = original;
        _context = context;
        _internal_submodules.Add("original_module", original);
    }

    /// <inheritdoc/>
    public string ModulePath { get; }

    /// <inheritdoc/>
    public nn.Module Original => _original;

    /// <inheritdoc/>
    public IEnumerable<string> AdapterNames => _rows.Keys;

    /// <summary>What the module gives with the rows of the active adapters in place of the base's.</summary>
    /// <param name="input">Int64 indices of any shape to an embedding; (..., D) to a head.</param>
    /// <returns>(..., D) or (..., V), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        var pass = _context.Current;
        if (!pass.Enabled || _context.Merged.Count > 0) return _original.call(input);
        using var scope = NewDisposeScope();
        var result = _original.call(input);
        if (pass.Samples is { } samples)
        {
            var parts = samples.RunsOf(input.shape[0])
                .Select(run => WithRowsOf(run.Adapter, input.narrow(0, run.Start, run.Length), result.narrow(0, run.Start, run.Length))).ToList();
            return (parts.Count == 1 ? parts[0] : cat(parts, 0)).MoveToOuterDisposeScope();
        }
        foreach (string adapter in pass.Active) result = WithRowsOf(adapter, input, result);
        return result.MoveToOuterDisposeScope();
    }

    private Tensor WithRowsOf(string adapter, Tensor input, Tensor result)
    {
        if (!_rows.TryGetValue(adapter, out var rows)) return result;
        if (IsHead)
        {
            var scores = MatrixProduct.Linear(input, rows.Values.to(input.dtype), Bias?.index_select(0, rows.Indices).to(input.dtype));
            return result.index_copy(-1, rows.Indices, scores.to(result.dtype));
        }
        var hits = input.unsqueeze(-1).eq(rows.Indices);                                   // (..., K)
        var own = rows.Values.index_select(0, hits.to(ScalarType.Float32).argmax(-1).flatten()).view(result.shape);
        return where(hits.any(-1).unsqueeze(-1), own.to(result.dtype), result);
    }

    /// <inheritdoc/>
    public IEnumerable<AdapterTensor> TensorsOf(string adapter)
        => _rows.TryGetValue(adapter, out var rows) && !_tied.Contains(adapter) ? [new AdapterTensor($"{Tensor}.{adapter}", Tensor, rows.Values)] : [];

    /// <inheritdoc/>
    public IEnumerable<(string Name, Parameter Parameter)> BaseParameters()
        => ModuleToSave.ParametersOf(_original).Select(p => ($"original_module.{p.Name}", p.Parameter));

    /// <inheritdoc/>
    public void Remove(string adapter)
    {
        if (!_rows.Remove(adapter, out var rows) || _tied.Remove(adapter)) return;
        _internal_params.Remove($"{Tensor}.{adapter}");
        rows.Values.Dispose();
        rows.Indices.Dispose();
    }

    /// <inheritdoc/>
    public void Rename(string from, string to)
    {
        if (!_rows.TryGetValue(from, out var rows)) return;
        int index = _rows.IndexOf(from);
        _rows.Remove(from);
        _rows.Insert(index, to, rows);
        if (_tied.Remove(from))
        {
            _tied.Add(to);
            return;
        }
        _internal_params.Remove($"{Tensor}.{from}");
        register_parameter($"{Tensor}.{to}", rows.Values);
    }

    /// <inheritdoc/>
    public void Release()
    {
        foreach (string adapter in _rows.Keys.ToList()) Remove(adapter);
        _internal_submodules.Clear();
        Dispose();
    }

    /// <inheritdoc/>
    protected override nn.Module _to(DeviceType deviceType, int deviceIndex, bool non_blocking)
    {
        _deviceIndex = int.MinValue;                         // the rows were made where the base is: TorchSharp must not think that it knows
        return base._to(deviceType, deviceIndex, non_blocking);
    }

    /// <summary>TorchSharp makes new parameters where it moves or casts them; the rows take them over.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
    {
        base._toEpilog(dtype, device, non_blocking);
        foreach (string adapter in _rows.Keys.ToList())
        {
            var rows = _rows[adapter];
            if (_tied.Contains(adapter)) continue;
            rows.Values = get_parameter($"{Tensor}.{adapter}")!;
            if (device is not null) rows.Indices = rows.Indices.to(device, disposeAfter: true).DetachFromDisposeScope();
        }
        if (_beforeMerge is not null && device is not null) _beforeMerge = _beforeMerge.to(device, disposeAfter: true).DetachFromDisposeScope();
    }

    internal void Add(string adapter, IReadOnlyList<long> indices)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var table = LoraEmbedding.TableOf(_original);
        if (!is_floating_point(table))
            throw new UnsupportedTargetException(ModulePath, $"its weight is stored as {table.dtype}, of which no rows can be trained; load this part unquantised.");
        if (indices.FirstOrDefault(i => i < 0 || i >= table.shape[0], -1) is >= 0 and var outside)
            throw new InvalidLoraConfigException([$"trainable_token_indices names token {outside}, but {ModulePath} has {table.shape[0]} rows"]);
        if (indices.Count == 0 || indices.Distinct().Count() != indices.Count || indices.Any(i => i < 0))
            throw new InvalidLoraConfigException([$"trainable_token_indices of {ModulePath} must be different token ids from 0 on, at least one"]);
        var at = tensor(indices.ToArray(), ScalarType.Int64, table.device);
        var rows = new Rows([.. indices], at.DetachFromDisposeScope(), new Parameter(table.index_select(0, at).clone().DetachFromDisposeScope(), requires_grad: false));
        _rows.Add(adapter, rows);
        register_parameter($"{Tensor}.{adapter}", rows.Values);
    }

    /// <summary>The tokens whose rows an adapter trains, in the order of its rows; none if it trains none here.</summary>
    internal IReadOnlyList<long> TokensOf(string adapter) => _rows.TryGetValue(adapter, out var rows) ? rows.Tokens : [];

    /// <summary>Uses the rows of the embedding that the module shares its weight with.</summary>
    internal void AddTied(string adapter, TokenRows source)
    {
        _rows.Add(adapter, source._rows[adapter]);
        _tied.Add(adapter);
    }

    /// <summary>Puts the rows of adapters into the table; shared ones are put there by their owner.</summary>
    /// <param name="adapters">The adapters, in order.</param>
    /// <param name="keep">Whether the table is kept as it was, for <see cref="EndMerge"/>.</param>
    internal void Merge(IReadOnlyList<string> adapters, bool keep)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var table = LoraEmbedding.TableOf(_original);
        var own = adapters.Where(a => _rows.ContainsKey(a) && !_tied.Contains(a)).ToList();
        if (own.Count == 0) return;
        if (keep) _beforeMerge = table.detach().clone().DetachFromDisposeScope();
        foreach (string adapter in own) table.index_copy_(0, _rows[adapter].Indices, _rows[adapter].Values.detach().to(table.dtype));
    }

    /// <summary>The table and what it held before the merge; null if no rows are merged here.</summary>
    internal (Parameter Table, Tensor Content)? BeforeMerge => _beforeMerge is null ? null : (LoraEmbedding.TableOf(_original), _beforeMerge);

    /// <summary>Takes merged rows out, or leaves them for good.</summary>
    internal void EndMerge(bool restore)
    {
        if (_beforeMerge is null) return;
        using var noGrad = no_grad();
        if (restore) LoraEmbedding.TableOf(_original).copy_(_beforeMerge);
        _beforeMerge.Dispose();
        _beforeMerge = null;
    }

    private bool IsHead => AdapterPlan.KindOf(_original) == TargetKind.Linear;

    private Tensor? Bias => _original is FrozenLinear frozen ? frozen.BiasTensor : (_original as Linear)?.bias;

    // One object for the owner and for whoever uses its rows.
    private sealed class Rows(IReadOnlyList<long> tokens, Tensor indices, Parameter values)
    {
        public IReadOnlyList<long> Tokens { get; } = tokens;

        public Tensor Indices { get; set; } = indices;

        public Parameter Values { get; set; } = values;
    }
}
