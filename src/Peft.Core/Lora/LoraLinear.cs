using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A frozen linear layer with any number of named LoRA adapters. How the base weight is stored is the affair of the
/// <see cref="FrozenLinear"/> inside. Parameters are named as PEFT names them: <c>base_layer.weight</c>, <c>lora_A.default.weight</c>.
/// </summary>
public sealed class LoraLinear : LoraLayer
{
    [TorchSharp.Utils.ComponentName(Name = "base_layer")] private readonly FrozenLinear _base;

    internal LoraLinear(string path, nn.Module original, AdapterContext context)
        : base(nameof(LoraLinear), path, original, context)
    {
        _base = original switch
        {
            FrozenLinear frozen => frozen,
            ITiedLinear tied => new TiedLinear(tied),
            _ => new TorchLinear((Linear)original),
        };
        RegisterComponents();
    }

    /// <summary>The frozen layer.</summary>
    public FrozenLinear BaseLayer => _base;

    internal override string FactorPrefix => "lora_";

    internal override string FactorSuffix => ".weight";

    internal override ScalarType BaseDtype => _base.WeightDtype;

    internal override Device BaseDevice => _base.StorageDevice;

    internal override Tensor? BaseBias => _base.BiasTensor;

    /// <summary>x Wᵀ + b plus what the active adapters add.</summary>
    /// <param name="input">(..., in).</param>
    /// <returns>(..., out) in the base output's dtype, in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        var pass = Context.Current;
        if (IsBaseOnly(pass)) return _base.call(input);
        if (pass.Samples is { } samples) return ForwardBySample(input, samples, pass);
        var active = ActiveHere(pass);
        return active.Count switch
        {
            0 => _base.call(input),
            1 when active[0].IsPlain && !_base.WeightIsTrained => LoraMatMul.Call(_base, active[0], input, MaskFor(active[0], input, pass), PrecisionOf(pass)),
            _ => ForwardComposed(input, active, pass),
        };
    }

    /// <inheritdoc/>
    public override Tensor BaseWeight(ScalarType dtype) => _base.MaterializeWeight(dtype);

    /// <inheritdoc/>
    public override IEnumerable<(string Name, Parameter Parameter)> BaseParameters()
        => _base is TiedLinear tied ? [("base_layer.weight", tied.Weight)] : _base.named_parameters().Select(p => ($"base_layer.{p.name}", p.parameter));

    internal override void OverwriteBase(Tensor weight) => _base.OverwriteWeight(weight);

    internal override Tensor ProductOf(Tensor a, Tensor b) => MatrixProduct.Multiply(b, a);

    internal override Tensor NormsOf(Tensor weight) => linalg.norm(weight, dims: [1L]);

    internal override Tensor OverWeight(Tensor factor) => factor.view(-1, 1);

    private Tensor ForwardComposed(Tensor input, List<LoraAdapter> active, AdapterPass pass)
    {
        using var scope = NewDisposeScope();
        var baseOutput = _base.call(input);
        var result = baseOutput;
        foreach (var adapter in active)
        {
            var x = InputFor(adapter, input, pass);
            var mask = MaskFor(adapter, x, pass);
            var dropped = mask is null ? x : DropoutFunction.Call(mask, x);
            result = adapter.Magnitude is null
                ? result + Product(adapter, dropped)
                : result + DoraPart(adapter, dropped, mask is null ? result : null);
        }
        return result.to(baseOutput.dtype).MoveToOuterDisposeScope();
    }

    private static Tensor Product(LoraAdapter adapter, Tensor x)
    {
        var hidden = MatrixProduct.Linear(x, adapter.A.to(x.dtype));
        return MatrixProduct.Linear(hidden, adapter.B.to(x.dtype), adapter.BBias?.to(x.dtype)) * adapter.Scaling;
    }

    // PEFT: with dropout in training the base's part is computed again from the dropped input, without the bias; otherwise the running
    // result is used, less the base's bias. The norm is a constant in the backward (Liu et al. 2024, section 4.3).
    private Tensor DoraPart(LoraAdapter adapter, Tensor x, Tensor? running)
    {
        Tensor norms;
        using (no_grad())
        {
            var weight = _base.MaterializeWeight(x.dtype).MoveToCurrent();
            var product = MatrixProduct.Multiply(adapter.B.detach().to(x.dtype), adapter.A.detach().to(x.dtype));
            norms = NormsOf(weight.add_(product, adapter.Scaling));
        }
        var factor = adapter.Magnitude!.to(x.dtype) / norms;
        // From the dropped input the base's part is computed as PEFT does: the weight in the input's dtype, whatever it is stored in, and no bias.
        var plain = running is null ? BaseProduct.Call(_base, x) : _base.BiasTensor is { } bias ? running - bias : running;
        var hidden = MatrixProduct.Linear(x, adapter.A.to(x.dtype));
        var product2 = MatrixProduct.Linear(hidden, adapter.B.to(x.dtype), adapter.BBias?.to(x.dtype));
        return (factor - 1) * plain + factor * product2 * adapter.Scaling;
    }

    private Tensor ForwardBySample(Tensor input, SampleAdapters samples, AdapterPass pass)
    {
        using var scope = NewDisposeScope();
        var output = _base.call(input);
        foreach (var (name, start, length) in samples.RunsOf(input.shape[0]))
        {
            if (!Adapters.TryGetValue(name, out var adapter)) continue;
            var x = InputFor(adapter, input.narrow(0, start, length), pass);
            var mask = MaskFor(adapter, x, pass);
            var delta = Product(adapter, mask is null ? x : DropoutFunction.Call(mask, x)).to(output.dtype);
            output.narrow(0, start, length).add_(delta);
        }
        return output.MoveToOuterDisposeScope();
    }
}
