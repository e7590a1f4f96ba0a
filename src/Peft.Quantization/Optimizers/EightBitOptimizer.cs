using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// An optimizer whose moments are kept in 8 bits, block-wise (Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2022). The
/// update is bitsandbytes' own: in fp32, parameters rounded once. Small tensors keep fp32 moments. It is a TorchSharp optimizer, so
/// TorchSharp's schedulers drive it.
/// </summary>
public abstract class EightBitOptimizer : optim.Optimizer
{
    /// <summary>bitsandbytes' default for <c>min_8bit_size</c>.</summary>
    public const long DefaultMinEightBitSize = 4096;

    /// <summary>The name under which bitsandbytes nests the state of a parameter.</summary>
    public const string NestedName = "__bnb_optimizer_quant_state__";

    private readonly UpdateRule _rule;
    private readonly bool _twoMoments;
    private readonly long _minEightBitSize;
    private readonly PagedMemory? _paged;
    private readonly Dictionary<int, OptimizerSlot> _slots = [];
    private readonly EightBitParameterGroup[] _groups;

    private protected EightBitOptimizer(
        UpdateRule rule, IEnumerable<EightBitParameterGroup> groups, double beta1, double beta2, double epsilon, long minEightBitSize, string? stateFile)
        : base(IntPtr.Zero)
    {
        ArgumentNullException.ThrowIfNull(groups);
        _rule = rule;
        _groups = [.. groups];
        _twoMoments = rule == UpdateRule.Adam;
        _minEightBitSize = minEightBitSize;
        (Beta1, Beta2, Epsilon) = (beta1, beta2, epsilon);
        if (stateFile is not null) _paged = new PagedMemory(stateFile, All.Sum(p => StateBytes(p.numel())));
    }

    /// <summary>Decay of the first moment (the momentum of SGD).</summary>
    public double Beta1 { get; }

    /// <summary>Decay of the second moment (of Lion's state).</summary>
    public double Beta2 { get; }

    /// <summary>Added to Adam's denominator.</summary>
    public double Epsilon { get; }

    /// <summary>Multiplies every gradient in the same pass, such as a clipping factor.</summary>
    public double GradientScale { get; set; } = 1;

    /// <summary>The parameters in groups.</summary>
    public IReadOnlyList<EightBitParameterGroup> Groups => _groups;

    /// <inheritdoc/>
    public override IEnumerable<optim.ILearningRateController> ParamGroups => _groups;

    /// <summary>Bytes that the states made so far take.</summary>
    public long StateBytesHeld => _slots.Values.Sum(s => s.Tensors.Sum(t => t.Value.numel() * t.Value.element_size()));

    private IEnumerable<Parameter> All => _groups.SelectMany(g => g.Parameters);

    /// <inheritdoc/>
    public override IEnumerable<Parameter> parameters() => All;

    /// <summary>One update of every parameter that has a gradient.</summary>
    /// <param name="closure">Evaluates the model and returns the loss, or null.</param>
    /// <returns>The closure's loss, or null.</returns>
    public override Tensor step(Func<Tensor>? closure = null)
    {
        Tensor? loss = null;
        if (closure is not null)
        {
            using (enable_grad()) loss = closure();
        }
        using var noGrad = no_grad();
        int index = 0;
        foreach (var group in _groups)
        {
            foreach (var parameter in group.Parameters)
            {
                using var gradient = parameter.grad;
                if (gradient is not null) Update(index, parameter, gradient, group);
                index++;
            }
        }
        return loss!;
    }

    /// <summary>Drops all gradients.</summary>
    public override void zero_grad()
    {
        foreach (var parameter in All)
        {
            using var gradient = parameter.grad;
            if (gradient is not null) parameter.grad = null;
        }
    }

    /// <summary>
    /// The state as bitsandbytes lays it out: per parameter, by its place, <c>step</c> and under <see cref="NestedName"/> <c>state1</c>,
    /// <c>state2</c>, <c>absmax1</c>, <c>absmax2</c>, <c>qmap1</c>, <c>qmap2</c> as far as it has them.
    /// </summary>
    /// <returns>Copies, in the current dispose scope; parameters without state are left out.</returns>
    public IReadOnlyList<EightBitParameterState> StateDict()
    {
        using var noGrad = no_grad();
        return [.. _slots.OrderBy(s => s.Key).Select(s => new EightBitParameterState(s.Key, s.Value.Step, Copies(s.Value)))];
    }

    /// <summary>Takes over a state (copied), to go on exactly where it was taken.</summary>
    /// <param name="state">As <see cref="StateDict"/> gives it; parameters that it does not name start afresh.</param>
    /// <exception cref="QuantStateException">An entry does not fit its parameter; nothing has changed.</exception>
    /// <exception cref="QuantMapException">The codes were made with another map; nothing has changed.</exception>
    public void LoadStateDict(IReadOnlyList<EightBitParameterState> state)
    {
        ArgumentNullException.ThrowIfNull(state);
        var all = All.ToList();
        foreach (var entry in state) Check(entry, all);
        using var noGrad = no_grad();
        foreach (var slot in _slots.Values) slot.Dispose();
        _slots.Clear();
        _paged?.Rewind();
        foreach (var entry in state)
        {
            var slot = Make(all[entry.Index], eightBit: entry.Tensors.ContainsKey("absmax1"));
            foreach (var (name, value) in slot.Tensors) value.copy_(entry.Tensors[name]);
            slot.Step = entry.Step;
            _slots[entry.Index] = slot;
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            foreach (var slot in _slots.Values) slot.Dispose();
            _slots.Clear();
            _paged?.Dispose();
        }
        base.Dispose(disposing);
    }

    private void Update(int index, Parameter parameter, Tensor gradient, EightBitParameterGroup group)
    {
        if (!_slots.TryGetValue(index, out var slot))
            _slots[index] = slot = Make(parameter, parameter.numel() >= _minEightBitSize);
        slot.Step++;
        OptimizerKernels.Apply(slot, gradient, new UpdateNumbers(
            _rule, slot.Step, group.LearningRate, Beta1, Beta2, Epsilon, group.WeightDecay, GradientScale));
    }

    private OptimizerSlot Make(Parameter parameter, bool eightBit)
    {
        long blocks = (parameter.numel() + OptimizerSlot.BlockSize - 1) / OptimizerSlot.BlockSize;
        Tensor State() => New(parameter.shape, eightBit ? ScalarType.Byte : ScalarType.Float32, parameter.device);
        Tensor? Absmax() => eightBit ? New([blocks], ScalarType.Float32, parameter.device) : null;
        return new OptimizerSlot(parameter, State(), Absmax(), _twoMoments ? State() : null, _twoMoments ? Absmax() : null);
    }

    private Tensor New(long[] shape, ScalarType dtype, Device device)
        => _paged is not null ? _paged.Take(shape, dtype) : zeros(shape, dtype, device).DetachFromDisposeScope();

    private long StateBytes(long count)
    {
        long blocks = (count + OptimizerSlot.BlockSize - 1) / OptimizerSlot.BlockSize;
        // fp32 for small tensors, and for any in a state that was loaded so.
        return (_twoMoments ? 2 : 1) * (PagedMemory.Rounded(count * 4) + PagedMemory.Rounded(blocks * 4));
    }

    private static Dictionary<string, Tensor> Copies(OptimizerSlot slot)
    {
        var copies = slot.Tensors.ToDictionary(t => t.Name, t => t.Value.clone());
        if (slot.Absmax1 is not null) copies["qmap1"] = EightBitMap.DynamicSigned.ToTensor();
        if (slot.Absmax2 is not null) copies["qmap2"] = EightBitMap.DynamicUnsigned.ToTensor();
        return copies;
    }

    private void Check(EightBitParameterState entry, List<Parameter> all)
    {
        string name = $"optimizer state {entry.Index}";
        if (entry.Index < 0 || entry.Index >= all.Count)
            throw QuantStateException.OfOptimizer(entry.Index, $"there are {all.Count} parameters; the state was saved for other ones.");
        long count = all[entry.Index].numel(), blocks = (count + OptimizerSlot.BlockSize - 1) / OptimizerSlot.BlockSize;
        bool eightBit = entry.Tensors.ContainsKey("absmax1");
        string[] wanted = _twoMoments ? ["state1", "state2"] : ["state1"];
        foreach (string part in eightBit ? [.. wanted, .. wanted.Select(w => w.Replace("state", "absmax", StringComparison.Ordinal))] : wanted)
        {
            if (!entry.Tensors.TryGetValue(part, out var tensor)) throw QuantStateException.OfOptimizer(entry.Index, $"{part} is missing.");
            long expected = part.StartsWith("state", StringComparison.Ordinal) ? count : blocks;
            if (tensor.numel() != expected) throw QuantStateException.OfOptimizer(entry.Index, $"{part} has {tensor.numel()} entries, expected {expected}.");
        }
        if (entry.Tensors.TryGetValue("qmap1", out var map1)) EightBitMap.DynamicSigned.RequireEqual(map1, name + ".qmap1");
        if (entry.Tensors.TryGetValue("qmap2", out var map2)) EightBitMap.DynamicUnsigned.RequireEqual(map2, name + ".qmap2");
    }
}
