using Peft.Core;
using Peft.Quantization;
using TorchSharp;

namespace Peft.Llava;

/// <summary>The base of a model in memory, counted as it is stored: dense tensors in their dtypes, packed weights with their statistics. Adapters are not the base's.</summary>
internal sealed class StoredBase
{
    private readonly Dictionary<ModelPart, long> _elementSizes = [];

    private StoredBase(torch.ScalarType dtype) => Dtype = dtype;

    /// <summary>The dtype of the decoder's stream.</summary>
    public torch.ScalarType Dtype { get; }

    /// <summary>All weights, and the buffer that the largest packed one is decoded into.</summary>
    public long Bytes { get; private init; }

    public static StoredBase Of(LlavaModel model)
    {
        var modules = ModuleTree.Modules(model).Select(m => m.Module).ToList();
        var packed = modules.OfType<FrozenLinear>().Where(l => l is FourBitLinear or Int8Linear).ToList();
        var adapters = modules.OfType<IAdapterHost>().SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf)).Select(t => t.Tensor.Handle).ToHashSet();
        var dense = model.named_parameters().Where(p => !adapters.Contains(p.parameter.Handle)).DistinctBy(p => p.parameter.Handle).ToList();
        long decoded = packed.Select(l => l.OutFeatures * l.InFeatures * ((l as FourBitLinear)?.ComputeDtype ?? model.Dtype).ElementSize()).DefaultIfEmpty().Max();
        var stored = new StoredBase(model.Dtype)
        {
            Bytes = dense.Sum(p => p.parameter.numel() * p.parameter.element_size()) + packed.Sum(l => l.StoredBytes) + decoded,
        };
        foreach (var (name, parameter) in dense.Where(p => p.parameter.is_floating_point())) stored._elementSizes.TryAdd(LlavaModel.PartOf(name), parameter.element_size());
        return stored;
    }

    /// <summary>Bytes of an element of a part.</summary>
    public long SizeOf(ModelPart part) => _elementSizes.GetValueOrDefault(part, Dtype.ElementSize());
}
