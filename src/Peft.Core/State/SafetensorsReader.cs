using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Reads a <c>.safetensors</c> file; tensors can be memory-mapped. What dtypes become in memory is said by <see cref="TensorDtypes"/>.
/// </summary>
public sealed class SafetensorsReader : ITensorReader
{
    private readonly TensorFile _file;
    private readonly SafetensorsHeader _header;
    private readonly OrderedDictionary<string, TensorEntry> _entries = [];

    private SafetensorsReader(TensorFile file)
    {
        _file = file;
        _header = SafetensorsHeader.Read(file);
        foreach (var (name, (entry, _)) in _header.Tensors) _entries.Add(name, entry);
    }

    /// <summary>Opens a file and checks its header: every byte of it must belong to one tensor.</summary>
    /// <param name="path">The file.</param>
    /// <returns>A reader; the caller disposes it. Tensors read from it stay valid after that.</returns>
    /// <exception cref="TensorFileNotFoundException">There is no such file.</exception>
    /// <exception cref="SafetensorsFormatException">The header is malformed, or does not fit the file.</exception>
    public static SafetensorsReader Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var file = new TensorFile(path);
        try
        {
            return new SafetensorsReader(file);
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

    /// <summary>The file's <c>__metadata__</c> in its order; null where it has none.</summary>
    public IReadOnlyDictionary<string, string>? Metadata => _header.Metadata;

    /// <inheritdoc/>
    public Tensor Load(string name) => Load(name, CancellationToken.None);

    /// <summary>Reads one tensor into memory of its own; tensors may be larger than 2 GB.</summary>
    /// <param name="name">A name of <see cref="Entries"/>.</param>
    /// <param name="cancellation">Ends the reading.</param>
    /// <returns>A fresh tensor on the CPU, detached from any dispose scope; the caller disposes it.</returns>
    /// <exception cref="TensorNotFoundException">No such tensor.</exception>
    /// <exception cref="SafetensorsFormatException">The file was cut off after it was opened.</exception>
    public Tensor Load(string name, CancellationToken cancellation)
    {
        var (entry, offset) = Find(name);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var tensor = empty([.. entry.Shape], entry.Dtype);
        if (!TensorBytes.Fill(tensor, _file.Handle, offset, cancellation))
            throw new SafetensorsFormatException(Source, SafetensorsFault.CutOff, "the file was cut off after it was opened", name);
        return tensor.DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    /// <exception cref="TensorFileChangedException">The file was changed after it was opened.</exception>
    public Tensor Map(string name)
    {
        var (entry, offset) = Find(name);
        return entry.Count == 0 || !TensorFile.CanMap(entry.Dtype, offset) ? Load(name) : _file.Map(entry.Dtype, offset, [.. entry.Shape]);
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private (TensorEntry Entry, long Offset) Find(string name)
        => _header.Tensors.TryGetValue(name, out var found) ? found : throw new TensorNotFoundException(Source, name, _entries.Keys);
}
