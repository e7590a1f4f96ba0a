using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>A file's tensors, and some more from memory. Both stay the caller's.</summary>
internal sealed class TensorsBeside : ITensorReader
{
    private readonly ITensorReader _file;
    private readonly IReadOnlyDictionary<string, Tensor> _more;

    public TensorsBeside(ITensorReader file, IReadOnlyDictionary<string, Tensor> more)
    {
        (_file, _more) = (file, more);
        var entries = new OrderedDictionary<string, TensorEntry>(file.Entries);
        foreach (var (name, tensor) in more) entries[name] = new TensorEntry(name, tensor.dtype, tensor.shape, TensorDtypes.NameOf(tensor.dtype)!);
        Entries = entries;
    }

    public string Source => _file.Source;

    public IReadOnlyDictionary<string, TensorEntry> Entries { get; }

    public Tensor Load(string name) => _more.TryGetValue(name, out var tensor) ? tensor.clone().DetachFromDisposeScope() : _file.Load(name);

    public Tensor Map(string name) => _more.ContainsKey(name) ? Load(name) : _file.Map(name);

    public void Dispose()
    {
        // The file belongs to whoever opened it.
    }
}
