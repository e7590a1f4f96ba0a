using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// An embedding table with any number of named LoRA adapters: row i gets scaling * A[:, i]ᵀ Bᵀ. Parameters are named as PEFT names them:
/// <c>base_layer.weight</c>, <c>lora_embedding_A.default</c>. There is no dropout here.
/// </summary>
public sealed class LoraEmbedding : LoraLayer
{
    [TorchSharp.Utils.ComponentName(Name = "base_layer")] private readonly nn.Module<Tensor, Tensor> _base;
    private readonly long? _padding;

    internal LoraEmbedding(string path, nn.Module original, AdapterContext context)
        : base(nameof(LoraEmbedding), path, original, context)
    {
        _base = (nn.Module<Tensor, Tensor>)original;
        _padding = original is Embedding native ? NativeEmbedding.Of(native).PaddingIndex : (original as IEmbeddingTable)?.PaddingIndex;
        RegisterComponents();
    }

    internal override string FactorPrefix => "lora_embedding_";

    internal override string FactorSuffix => "";

    internal override ScalarType BaseDtype => Table.dtype;

    internal override Device BaseDevice => Table.device;

    internal override Tensor? BaseBias => null;

    private Parameter Table => TableOf(_base);

    /// <summary>Rows of the table plus what the active adapters add.</summary>
    /// <param name="input">Int64 indices of any shape.</param>
    /// <returns>(..., D) in the table's dtype, in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        var pass = Context.Current;
        if (IsBaseOnly(pass)) return _base.call(input);
        if (pass.Samples is { } samples) return ForwardBySample(input, samples);
        using var scope = NewDisposeScope();
        var baseOutput = _base.call(input);
        var result = baseOutput;
        foreach (var adapter in ActiveHere(pass))
        {
            var delta = Product(adapter, input);
            if (adapter.Magnitude is null) result = result + delta;
            else
            {
                Tensor norms;
                using (no_grad()) norms = NormsOf(BaseWeight(BaseDtype).MoveToCurrent() + ProductOf(adapter.A.detach(), adapter.B.detach()) * adapter.Scaling);
                var factor = adapter.Magnitude / norms;
                result = factor * result + factor * delta;
            }
        }
        return result.to(baseOutput.dtype).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor BaseWeight(ScalarType dtype)
    {
        using var noGrad = no_grad();
        return Table.to(dtype, copy: true).DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public override IEnumerable<(string Name, Parameter Parameter)> BaseParameters()
        => _base.named_parameters().Select(p => ($"base_layer.{p.name}", p.parameter));

    internal static Parameter TableOf(nn.Module embedding)
        => embedding is IEmbeddingTable table ? table.Weight : embedding is ITiedLinear tied ? tied.Weight : embedding.named_parameters(recurse: false).First(p => p.name == "weight").parameter;

    internal override void OverwriteBase(Tensor weight) => MappedPages.Overwrite(Table, weight);

    internal override Tensor ProductOf(Tensor a, Tensor b) => b.matmul(a).t();

    internal override Tensor NormsOf(Tensor weight) => linalg.norm(weight, dims: [0L]);

    internal override Tensor OverWeight(Tensor factor) => factor.view(1, -1);

    private Tensor Product(LoraAdapter adapter, Tensor indices)
        => MatrixProduct.Linear(FrozenEmbedding.Rows(adapter.A.t(), indices, _padding), adapter.B) * adapter.Scaling;

    private Tensor ForwardBySample(Tensor input, SampleAdapters samples)
    {
        using var scope = NewDisposeScope();
        var output = _base.call(input);
        if (output.requires_grad) output = output.clone();
        foreach (var (name, start, length) in samples.RunsOf(input.shape[0]))
        {
            if (Adapters.TryGetValue(name, out var adapter))
                output.narrow(0, start, length).add_(Product(adapter, input.narrow(0, start, length)).to(output.dtype));
        }
        return output.MoveToOuterDisposeScope();
    }
}
