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
        => _rows.TryGetValue(adapter, out var rows) && !rows.Tied ? [new AdapterTensor($"{Tensor}.{adapter}", Tensor, rows.Values)] : [];

    /// <inheritdoc/>
    public IEnumerable<(string Name, Parameter Parameter)> BaseParameters()
        => ModuleToSave.ParametersOf(_original).Select(p => ($"original_module.{p.Name}", p.Parameter));

    /// <inheritdoc/>
    public void Remove(string adapter)
    {
        if (!_rows.Remove(adapter, out var rows) || rows.Tied) return;
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
        if (rows.Tied) return;
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

    /// <summary>The tokens whose rows an adapter trains, in the order of its rows.</summary>
    internal IReadOnlyList<long> TokensOf(string adapter)
    {
        using var local = _rows[adapter].Indices.cpu();
        return [.. local.data<long>()];
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
        var rows = new Rows(at.DetachFromDisposeScope(), new Parameter(table.index_select(0, at).clone().DetachFromDisposeScope(), requires_grad: false), Tied: false);
        _rows.Add(adapter, rows);
        register_parameter($"{Tensor}.{adapter}", rows.Values);
    }

    /// <summary>Uses the rows of the embedding that the module shares its weight with.</summary>
    internal void AddTied(string adapter, TokenRows source) => _rows.Add(adapter, source._rows[adapter] with { Tied = true });

    /// <summary>Puts the rows of adapters into the table; shared ones are put there by their owner.</summary>
    internal void Merge(IReadOnlyList<string> adapters)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var table = LoraEmbedding.TableOf(_original);
        if (!adapters.Any(a => _rows.TryGetValue(a, out var own) && !own.Tied)) return;
        _beforeMerge = table.detach().clone().DetachFromDisposeScope();
        foreach (string adapter in adapters)
            if (_rows.TryGetValue(adapter, out var rows) && !rows.Tied) table.index_copy_(0, rows.Indices, rows.Values.detach().to(table.dtype));
    }

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

    private sealed record Rows(Tensor Indices, Parameter Values, bool Tied);
}
