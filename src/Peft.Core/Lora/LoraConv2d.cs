using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A two-dimensional convolution with any number of named LoRA adapters: A is a convolution of the base's kernel to R channels, B one of
/// kernel 1 from there to the output. Parameters are named as PEFT names them.
/// </summary>
public sealed class LoraConv2d : LoraLayer
{
    [TorchSharp.Utils.ComponentName(Name = "base_layer")] private readonly Conv2d _base;

    internal LoraConv2d(string path, Conv2d original, AdapterContext context)
        : base(nameof(LoraConv2d), path, original, context)
    {
        if (original.padding is null || original.padding_mode != PaddingModes.Zeros)
            throw new UnsupportedTargetException(path, "LoRA works on convolutions with a number as zero padding only; pad before the layer.");
        _base = original;
        RegisterComponents();
    }

    /// <summary>Whether the convolution has groups: PEFT's A spans all input channels, so that what an adapter adds is no weight of the base's shape.</summary>
    internal bool IsGrouped => _base.groups > 1;

    /// <summary>What PEFT cannot do with groups either.</summary>
    internal static void CheckGroups(string path, Conv2d convolution, LoraConfig config, int rank)
    {
        if (convolution.groups == 1) return;
        if (rank % convolution.groups != 0)
            throw new InvalidLoraConfigException([$"r is {rank} at {path}, which has {convolution.groups} groups; it must be a multiple of them (rank_pattern sets it for this layer alone)"]);
        if (config.UseDora)
            throw new UnsupportedTargetException(path, $"its {convolution.groups} groups do not go with use_dora, which needs the adapter's sum with the weight; leave it out (exclude_modules).");
    }

    internal override string FactorPrefix => "lora_";

    internal override string FactorSuffix => ".weight";

    internal override ScalarType BaseDtype => _base.weight.dtype;

    internal override Device BaseDevice => _base.weight.device;

    internal override Tensor? BaseBias => _base.bias;

    /// <summary>The convolution plus what the active adapters add.</summary>
    /// <param name="input">(B, in, H, W).</param>
    /// <returns>(B, out, H', W') in the base output's dtype, in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        var pass = Context.Current;
        if (IsBaseOnly(pass)) return _base.call(input);
        using var scope = NewDisposeScope();
        var baseOutput = _base.call(input);
        if (pass.Samples is { } samples)
        {
            if (baseOutput.requires_grad) baseOutput = baseOutput.clone();
            foreach (var (name, start, length) in samples.RunsOf(input.shape[0]))
            {
                if (Adapters.TryGetValue(name, out var one))
                    baseOutput.narrow(0, start, length).add_(Product(one, Dropped(one, input.narrow(0, start, length), pass, out _)).to(baseOutput.dtype));
            }
            return baseOutput.MoveToOuterDisposeScope();
        }
        var result = baseOutput;
        foreach (var adapter in ActiveHere(pass))
        {
            var x = Dropped(adapter, input, pass, out bool dropped);
            result = result + (adapter.Magnitude is null ? Product(adapter, x) : DoraPart(adapter, x, dropped ? null : result));
        }
        return result.to(baseOutput.dtype).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor BaseWeight(ScalarType dtype)
    {
        using var noGrad = no_grad();
        return _base.weight.to(dtype, copy: true).DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public override IEnumerable<(string Name, Parameter Parameter)> BaseParameters()
    {
        yield return ("base_layer.weight", _base.weight);
        if (_base.bias is { } bias) yield return ("base_layer.bias", bias);
    }

    internal override void OverwriteBase(Tensor weight) => MappedPages.Overwrite(_base.weight, weight);

    internal override Tensor ProductOf(Tensor a, Tensor b) => IsGrouped
        ? throw new AdapterStateException($"What an adapter adds at {ModulePath} cannot be written as a weight of its {_base.groups} groups, so it can be neither merged nor taken apart; use the adapter unmerged.")
        : b.flatten(1).matmul(a.flatten(1)).view(_base.weight.shape);

    internal override Tensor NormsOf(Tensor weight) => linalg.norm(weight.flatten(1), dims: [1L]).view(1, -1, 1, 1);

    internal override Tensor OverWeight(Tensor factor) => factor.view(-1, 1, 1, 1);

    private Tensor Convolve(Tensor x, Tensor weight, long groups = 1)
        => nn.functional.conv2d(x, weight, null, _base.stride, _base.padding, _base.dilation, groups);

    private Tensor Product(LoraAdapter adapter, Tensor x)
        => nn.functional.conv2d(Convolve(x, adapter.A.to(x.dtype)), adapter.B.to(x.dtype), adapter.BBias?.to(x.dtype), groups: _base.groups) * adapter.Scaling;

    private Tensor Dropped(LoraAdapter adapter, Tensor input, AdapterPass pass, out bool dropped)
    {
        var x = InputFor(adapter, input, pass);
        var mask = MaskFor(adapter, x, pass);
        dropped = mask is not null;
        return mask is null ? x : DropoutFunction.Call(mask, x);
    }

    private Tensor DoraPart(LoraAdapter adapter, Tensor x, Tensor? running)
    {
        Tensor norms;
        using (no_grad())
            norms = NormsOf(BaseWeight(x.dtype).MoveToCurrent().add_(ProductOf(adapter.A.detach().to(x.dtype), adapter.B.detach().to(x.dtype)), (float)adapter.Scaling));
        var factor = adapter.Magnitude!.to(x.dtype) / norms;
        var plain = running is null ? Convolve(x, _base.weight.to(x.dtype)) : _base.bias is { } bias ? running - bias.view(1, -1, 1, 1) : running;
        return (factor - 1) * plain + factor * Product(adapter, x);
    }
}
