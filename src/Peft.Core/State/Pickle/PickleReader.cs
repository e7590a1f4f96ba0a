using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Reads a state dict of <c>torch.save</c> (<c>.bin</c>, <c>.pt</c>): a mapping from names to tensors. See <see cref="PickleFile"/>.</summary>
public sealed class PickleReader : ITensorReader
{
    private readonly PickleFile _file;
    private readonly OrderedDictionary<string, TensorEntry> _entries = [];
    private readonly Dictionary<string, PickledTensor> _tensors = [];

    private PickleReader(PickleFile file)
    {
        _file = file;
        if (file.Root is not PickleDictionary root)
            throw new PickleFormatException(file.Path, $"it holds a {Described(file.Root)}, no dict of tensors", "Read it with PickleFile.Open instead.");
        foreach (var (key, value) in root)
        {
            if (key is not string name || value is not PickledTensor tensor)
                throw new PickleFormatException(
                    file.Path, $"its item '{key}' is a {Described(value)}, no named tensor", "Read it with PickleFile.Open instead, and take the tensors from there.");
            long[] shape = TensorDtypes.ShapeInMemory(tensor.DtypeName, tensor.Shape);
            _entries[name] = new TensorEntry(name, TensorDtypes.InMemory(tensor.DtypeName), shape, tensor.DtypeName);
            _tensors[name] = tensor;
        }
    }

    /// <summary>Opens a file.</summary>
    /// <param name="path">The file.</param>
    /// <returns>A reader; the caller disposes it. Tensors read from it stay valid after that.</returns>
    /// <exception cref="TensorFileNotFoundException">There is no such file.</exception>
    /// <exception cref="PickleFormatException">The file is damaged, or holds other than a mapping from names to tensors.</exception>
    /// <exception cref="PickleRefusedException">The file asks for something other than tensors and plain containers.</exception>
    public static PickleReader Open(string path)
    {
        var file = PickleFile.Open(path);
        try
        {
            return new PickleReader(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public string Source => _file.Path;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, TensorEntry> Entries => _entries;

    /// <inheritdoc/>
    public Tensor Load(string name) => Find(name).Load();

    /// <inheritdoc/>
    public Tensor Map(string name) => Find(name).Map();

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private PickledTensor Find(string name)
        => _tensors.TryGetValue(name, out var tensor) ? tensor : throw new TensorNotFoundException(Source, name, _entries.Keys);

    private static string Described(object? value) => value switch
    {
        null => "None",
        PickledTensor => "tensor",
        PickleDictionary => "dict",
        PickleTuple => "tuple",
        List<object?> => "list",
        string => "text",
        bool => "bool",
        double => "float",
        byte[] => "bytes",
        PickleGlobal or PickleStorage => "class",
        _ => "number",
    };
}
