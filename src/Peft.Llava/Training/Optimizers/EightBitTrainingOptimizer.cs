using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>An optimizer with 8-bit moments in the trainer's terms: state by parameter name, rates by group.</summary>
public sealed class EightBitTrainingOptimizer : TrainingOptimizer
{
    private readonly EightBitOptimizer _inner;
    private readonly List<string> _names;

    /// <summary>Creates the optimizer.</summary>
    /// <param name="groups">The parameters; they remain the model's.</param>
    /// <param name="create">Makes the optimizer over groups that mirror <paramref name="groups"/>; it belongs to this one then.</param>
    public EightBitTrainingOptimizer(IReadOnlyList<ParameterGroup> groups, Func<IReadOnlyList<EightBitParameterGroup>, EightBitOptimizer> create)
        : base(groups)
    {
        ArgumentNullException.ThrowIfNull(create);
        _names = [.. groups.SelectMany(g => g.Parameters).Select(p => p.Name)];
        _inner = create([.. groups.Select(g => new EightBitParameterGroup(g.Parameters.Select(p => p.Parameter), g.Rate, g.WeightDecay))]);
    }

    /// <summary>The state: <c>state1</c>, <c>state2</c>, <c>absmax1</c>, <c>absmax2</c> and <c>step</c> of each parameter, as <c>kind/parameter</c>.</summary>
    /// <returns>Copies, in the current dispose scope.</returns>
    public override IReadOnlyDictionary<string, Tensor> State
    {
        get
        {
            var state = new Dictionary<string, Tensor>(StringComparer.Ordinal);
            foreach (var entry in _inner.StateDict())
            {
                state[$"step/{_names[entry.Index]}"] = tensor([(float)entry.Step]);
                // The maps are constants.
                foreach (var (kind, value) in entry.Tensors.Where(t => !t.Key.StartsWith("qmap", StringComparison.Ordinal)))
                    state[$"{kind}/{_names[entry.Index]}"] = value;
            }
            return state;
        }
    }

    /// <summary>The state as bitsandbytes has it, maps included: copies, in the current dispose scope.</summary>
    internal IReadOnlyList<EightBitParameterState> StateDict() => _inner.StateDict();

    /// <summary>The name of the parameter at a place.</summary>
    internal string NameOf(int index) => _names[index];

    /// <inheritdoc/>
    /// <exception cref="QuantStateException">An entry is missing or of another size.</exception>
    public override void LoadState(IReadOnlyDictionary<string, Tensor> state)
    {
        ArgumentNullException.ThrowIfNull(state);
        var byParameter = new SortedDictionary<int, Dictionary<string, Tensor>>();
        var problems = new List<string>();
        foreach (var (key, value) in state)
        {
            int slash = key.IndexOf('/', StringComparison.Ordinal);
            int index = slash < 0 ? -1 : _names.IndexOf(key[(slash + 1)..]);
            if (index < 0)
            {
                problems.Add($"'{key}' belongs to no trained parameter");
                continue;
            }
            if (!byParameter.TryGetValue(index, out var tensors)) byParameter[index] = tensors = [];
            tensors[key[..slash]] = value;
        }
        problems.AddRange(byParameter.Where(p => !p.Value.ContainsKey("step")).Select(p => $"'step/{_names[p.Key]}' is missing"));
        if (problems.Count > 0) throw new StateMismatchException("The optimizer's state", problems);
        _inner.LoadStateDict([.. byParameter.Select(p => new EightBitParameterState(
            p.Key, (int)p.Value["step"].item<float>(), p.Value.Where(t => t.Key != "step").ToDictionary()))]);
    }

    /// <inheritdoc/>
    protected override void StepCore(double gradientScale)
    {
        for (int i = 0; i < Groups.Count; i++)
        {
            _inner.Groups[i].LearningRate = Groups[i].Rate;
            _inner.Groups[i].WeightDecay = Groups[i].WeightDecay;
        }
        _inner.GradientScale = gradientScale;
        _inner.step();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _inner.Dispose();
        base.Dispose(disposing);
    }
}
