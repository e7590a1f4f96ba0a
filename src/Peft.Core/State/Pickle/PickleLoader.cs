using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Copies what a pickle holds, with its tensors read.</summary>
internal sealed class PickleLoader(PickleFile file, CancellationToken cancellation)
{
    private const int DepthLimit = 100;
    private readonly Dictionary<(string Key, string DtypeName), Tensor> _whole = [];
    private readonly Dictionary<object, object> _done = new(ReferenceEqualityComparer.Instance);

    public object? Load(object? value, int depth)
    {
        if (depth > DepthLimit) throw new PickleFormatException(file.Path, $"its containers are nested deeper than {DepthLimit} levels");
        if (value is null or string || value.GetType().IsPrimitive) return value;
        if (_done.TryGetValue(value, out object? done)) return done;
        return value switch
        {
            PickledTensor tensor => _done[value] = Load(tensor),
            PickleDictionary dictionary => Copy(dictionary, depth),
            List<object?> list => Copy(list, depth),
            PickleTuple tuple => _done[value] = new PickleTuple([.. tuple.Select(item => Load(item, depth + 1))]),
            _ => value,
        };
    }

    public void DisposeTensors()
    {
        foreach (var tensor in _done.Values.OfType<Tensor>()) tensor.Dispose();
    }

    // Tied weights are two tensors over one whole storage, and stay tied.
    private Tensor Load(PickledTensor tensor)
    {
        if (!tensor.IsContiguous || tensor.Count != tensor.Storage.Count) return tensor.Load(cancellation);
        var place = (tensor.StorageKey, tensor.DtypeName);
        if (_whole.TryGetValue(place, out var known))
            return known.view(TensorDtypes.ShapeInMemory(tensor.DtypeName, tensor.Shape)).DetachFromDisposeScope();
        return _whole[place] = tensor.Load(cancellation);
    }

    private PickleDictionary Copy(PickleDictionary source, int depth)
    {
        var copy = new PickleDictionary(isOrderedDict: source.IsOrderedDict);
        _done[source] = copy;                                    // before the items: they may lead back here
        foreach (var (key, item) in source) copy.Set(Load(key, depth + 1)!, Load(item, depth + 1));
        copy.Attributes = (PickleDictionary?)Load(source.Attributes, depth + 1);
        return copy;
    }

    private List<object?> Copy(List<object?> source, int depth)
    {
        var copy = new List<object?>(source.Count);
        _done[source] = copy;
        foreach (object? item in source) copy.Add(Load(item, depth + 1));
        return copy;
    }
}
