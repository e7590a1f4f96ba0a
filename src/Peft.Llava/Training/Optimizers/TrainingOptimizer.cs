using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Turns gradients into changes of the parameters. Holds its state per parameter by name, so that it can be written to a checkpoint and
/// read back; a parameter without a gradient is left alone.
/// </summary>
public abstract class TrainingOptimizer : IDisposable
{
    private readonly Dictionary<string, SortedDictionary<string, Tensor>> _state = new(StringComparer.Ordinal);
    private bool _disposed;

    /// <summary>Creates the optimizer; state is made when a parameter has its first gradient.</summary>
    /// <param name="groups">The parameters; they remain the model's.</param>
    protected TrainingOptimizer(IReadOnlyList<ParameterGroup> groups) => Groups = groups;

    /// <summary>The parameters in groups; set <see cref="ParameterGroup.Rate"/> before a step.</summary>
    public IReadOnlyList<ParameterGroup> Groups { get; }

    /// <summary>
    /// One step from the gradients as they are, each multiplied by <paramref name="gradientScale"/> (the clipping factor), which some
    /// optimizers do in the same pass over memory. The gradients may be changed.
    /// </summary>
    public void Step(double gradientScale = 1)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        StepCore(gradientScale);
    }

    /// <summary>Does the step; grad mode is off and a dispose scope is open.</summary>
    protected abstract void StepCore(double gradientScale);

    /// <summary>Drops all gradients (they become absent, not zero).</summary>
    public void ZeroGrad()
    {
        foreach (var parameter in Groups.SelectMany(g => g.Parameters))
        {
            using var gradient = parameter.Parameter.grad;
            if (gradient is not null) parameter.Parameter.grad = null;
        }
    }

    /// <summary>
    /// The state: entries named <c>kind/parameter</c>, such as <c>exp_avg/model.norm.weight</c>; numbers are float32 tensors of one element.
    /// </summary>
    /// <returns>Tensors that remain the optimizer's; copy what is to be kept.</returns>
    public virtual IReadOnlyDictionary<string, Tensor> State
        => _state.SelectMany(p => p.Value.Select(s => (Key: $"{s.Key}/{p.Key}", s.Value))).ToDictionary(s => s.Key, s => s.Value);

    /// <summary>Takes over a state as <see cref="State"/> gave it (copied); parameters it does not name start afresh.</summary>
    /// <exception cref="StateMismatchException">An entry belongs to no parameter, or has another shape.</exception>
    public virtual void LoadState(IReadOnlyDictionary<string, Tensor> state)
    {
        ArgumentNullException.ThrowIfNull(state);
        var known = Groups.SelectMany(g => g.Parameters).ToDictionary(p => p.Name, StringComparer.Ordinal);
        var problems = new List<string>();
        foreach (string key in state.Keys)
        {
            int slash = key.IndexOf('/', StringComparison.Ordinal);
            if (slash < 0 || !known.TryGetValue(key[(slash + 1)..], out var parameter)) problems.Add($"'{key}' belongs to no trained parameter");
            else if (!FitsShape(key[..slash], state[key], parameter))
                problems.Add($"'{key}' has shape ({string.Join(", ", state[key].shape)}), the parameter ({string.Join(", ", parameter.Parameter.shape)})");
        }
        if (problems.Count > 0) throw new StateMismatchException("The optimizer's state", problems);
        ClearState();
        using var noGrad = no_grad();
        foreach (var (key, value) in state)
        {
            int slash = key.IndexOf('/', StringComparison.Ordinal);
            var parameter = known[key[(slash + 1)..]];
            Slots(parameter)[key[..slash]] = value.detach().to(parameter.Parameter.device, copy: true).DetachFromDisposeScope();
        }
        OnStateLoaded();
    }

    /// <summary>Whether a loaded entry has a shape this optimizer can use; by default the parameter's, or one element.</summary>
    protected virtual bool FitsShape(string kind, Tensor value, NamedParameter parameter)
        => value.numel() == 1 || value.shape.SequenceEqual(parameter.Parameter.shape);

    /// <summary>Called after <see cref="LoadState"/> has replaced the state.</summary>
    protected virtual void OnStateLoaded()
    {
    }

    /// <summary>The parameters that have a gradient now, with it; the gradient is in the open dispose scope.</summary>
    protected static IEnumerable<(NamedParameter Parameter, Tensor Gradient)> WithGradient(ParameterGroup group)
    {
        foreach (var parameter in group.Parameters)
            if (parameter.Parameter.grad is { } gradient) yield return (parameter, gradient);
    }

    /// <summary>The named state tensors of a parameter.</summary>
    protected IDictionary<string, Tensor> Slots(NamedParameter parameter)
    {
        if (!_state.TryGetValue(parameter.Name, out var slots)) _state[parameter.Name] = slots = new(StringComparer.Ordinal);
        return slots;
    }

    /// <summary>A state tensor of a parameter, made as zeros like the parameter (or of the shape given) on first use.</summary>
    protected Tensor Slot(NamedParameter parameter, string kind, IReadOnlyList<long>? shape = null)
    {
        var slots = Slots(parameter);
        if (!slots.TryGetValue(kind, out var tensor))
        {
            var like = parameter.Parameter;
            tensor = zeros([.. shape ?? like.shape], dtype: like.dtype, device: like.device).DetachFromDisposeScope();
            slots[kind] = tensor;
        }
        return tensor;
    }

    /// <summary>Counts a step of a parameter and returns the new count, from 1.</summary>
    protected int CountStep(NamedParameter parameter)
    {
        var slots = Slots(parameter);
        if (!slots.TryGetValue("step", out var step))
            slots["step"] = step = zeros([1], dtype: ScalarType.Float32).DetachFromDisposeScope();
        step.add_(1);
        return (int)step.item<float>();
    }

    /// <summary>Releases the state.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases the state.</summary>
    protected virtual void Dispose(bool disposing)
    {
        if (_disposed) return;
        _disposed = true;
        if (disposing) ClearState();
    }

    private void ClearState()
    {
        foreach (var slots in _state.Values)
            foreach (var tensor in slots.Values) tensor.Dispose();
        _state.Clear();
    }
}
