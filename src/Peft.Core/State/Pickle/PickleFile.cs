using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// What a file of <c>torch.save</c> (PyTorch 1.6 and later) holds, read by a restricted unpickler: tensors and plain containers, never code.
/// Anything else in the file is refused by name.
/// </summary>
public sealed class PickleFile : IDisposable
{
    private const int PickleLimit = 1 << 29;
    private const string Legacy = "it is no zip file: PyTorch before 1.6 wrote such, or it is another kind of file";
    private readonly TensorFile _file;
    private readonly ZipDirectory _zip;
    private readonly string _archive;

    private PickleFile(string path)
    {
        _file = new TensorFile(path);
        try
        {
            if (!_file.Read(0, 4).AsSpan().SequenceEqual("PK\u0003\u0004"u8))
                throw new PickleFormatException(path, Legacy, "Load it in Python and save it again with torch.save, best its tensors as safetensors.");
            _zip = new ZipDirectory(_file);
            _archive = FindArchive();
            Root = new Unpickler(this, ReadSmall("data.pkl", PickleLimit)).Run();
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>Opens a file and reads its pickle; tensors stay in the file until they are asked for.</summary>
    /// <param name="path">The file.</param>
    /// <returns>The file; the caller disposes it. Tensors read from it stay valid after that.</returns>
    /// <exception cref="TensorFileNotFoundException">There is no such file.</exception>
    /// <exception cref="PickleFormatException">The file is damaged, or not of this form.</exception>
    /// <exception cref="PickleRefusedException">The file asks for something other than tensors and plain containers.</exception>
    public static PickleFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return new PickleFile(path);
    }

    /// <summary>The file.</summary>
    public string Path => _file.Path;

    /// <summary>What the file holds: a value of the kinds that <see cref="PickleDictionary"/> lists.</summary>
    public object? Root { get; }

    /// <summary>Reads a file whole.</summary>
    /// <param name="path">The file.</param>
    /// <param name="cancellation">Ends the reading.</param>
    /// <returns>
    /// What the file holds, with <see cref="Tensor"/> (fresh, on the CPU, detached from any dispose scope; the caller disposes them) in the
    /// place of <see cref="PickledTensor"/>. A tensor that the file refers to twice is the same object twice, and tensors over one whole
    /// storage (tied weights) share memory.
    /// </returns>
    /// <exception cref="PickleFormatException">The file is damaged, not of this form, or nested deeper than 100 levels.</exception>
    /// <exception cref="PickleRefusedException">The file asks for something other than tensors and plain containers.</exception>
    public static object? ReadObject(string path, CancellationToken cancellation = default)
    {
        using var file = Open(path);
        var loader = new PickleLoader(file, cancellation);
        try
        {
            return loader.Load(file.Root, 0);
        }
        catch
        {
            loader.DisposeTensors();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    internal Tensor Load(PickledTensor tensor, CancellationToken cancellation)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var storage = tensor.Storage;
        var type = TensorDtypes.InMemory(storage.DtypeName);
        long[] shape = TensorDtypes.ShapeInMemory(storage.DtypeName, tensor.Shape);
        if (tensor.Count == 0) return empty(shape, type).DetachFromDisposeScope();
        long size = TensorDtypes.SizeInFile(storage.DtypeName);
        bool whole = tensor.IsContiguous && tensor.Count == storage.Count && !storage.Record.Deflated;
        if (whole)
        {
            var result = empty(shape, type);
            ReadRecord(storage.Record, result, cancellation);
            return result.DetachFromDisposeScope();
        }
        var all = empty(storage.Record.Length / type.ElementSize(), dtype: type);
        if (storage.Record.Deflated) ReadDeflated(storage.Record, all);
        else ReadRecord(storage.Record, all, cancellation);
        long unit = size / type.ElementSize();
        long[] strides = [.. tensor.Strides.Select(stride => stride * unit)];
        if (shape.Length > strides.Length) strides = [.. strides, 1];
        return all.as_strided(shape, strides, tensor.Offset * unit).clone().contiguous().DetachFromDisposeScope();
    }

    internal Tensor Map(PickledTensor tensor)
    {
        var storage = tensor.Storage;
        var type = TensorDtypes.InMemory(storage.DtypeName);
        long size = TensorDtypes.SizeInFile(storage.DtypeName);
        bool wide = type == ScalarType.Byte && size > 1;
        if (tensor.Count == 0 || wide || storage.Record.Deflated || !TensorFile.CanMap(type, storage.Record.DataOffset)) return Load(tensor, CancellationToken.None);
        return _file.Map(type, storage.Record.DataOffset + tensor.Offset * size, [.. tensor.Shape], [.. tensor.Strides]);
    }

    /// <summary>What a persistent id means: a storage of the file, whose record must be there and of the right size.</summary>
    internal object Storage(object? id)
    {
        if (id is not PickleTuple tuple || tuple is not ["storage", PickleGlobal.Storage kind, string key, string location, long count])
            throw new PickleRefusedException(Path, "an object by an unknown kind of persistent id");
        if (!_zip.Records.TryGetValue($"{_archive}/data/{key}", out var record)) throw new PickleFormatException(Path, $"storage '{key}' has no record");
        string dtype = kind.DtypeName ?? "U8";
        if (count < 0 || record.Length / TensorDtypes.SizeInFile(dtype) != count || record.Length % TensorDtypes.SizeInFile(dtype) != 0)
            throw new PickleFormatException(Path, $"storage '{key}' has {count} elements of {dtype}, but its record has {record.Length} bytes");
        return new PickleStorage(key, dtype, location, count, record);
    }

    internal PickledTensor Rebuild(bool dtypeGiven, PickleTuple arguments)
    {
        if (arguments.Count < 6 || arguments[0] is not PickleStorage storage || arguments[1] is not long offset
            || Numbers(arguments[2]) is not { } shape || Numbers(arguments[3]) is not { } strides
            || arguments[4] is not bool requiresGrad || arguments[5] is not PickleDictionary { Count: 0 }
            || (dtypeGiven ? arguments.Count != 7 : arguments.Count > 7 || arguments is [_, _, _, _, _, _, not (null or PickleDictionary { Count: 0 })]))
            throw new PickleRefusedException(Path, "a tensor with unusual arguments (hooks or attributes)");
        if (dtypeGiven)
        {
            if (arguments[6] is not PickleGlobal.Dtype dtype) throw new PickleRefusedException(Path, "a tensor with unusual arguments (hooks or attributes)");
            long size = TensorDtypes.SizeInFile(dtype.DtypeName);
            if (storage.Record.Length % size != 0)
                throw new PickleFormatException(Path, $"storage '{storage.Key}' has {storage.Record.Length} bytes, which are no whole elements of {dtype.DtypeName}");
            storage = storage with { DtypeName = dtype.DtypeName, Count = storage.Record.Length / size };
        }
        if (!Fits(shape, strides, offset, storage.Count))
            throw new PickleFormatException(Path, $"a tensor of shape ({string.Join(", ", shape)}), strides ({string.Join(", ", strides)}) and offset {offset} "
                + $"does not fit into storage '{storage.Key}' of {storage.Count} elements");
        return new PickledTensor(this, storage, offset, shape, strides, requiresGrad);
    }

    private static long[]? Numbers(object? value)
        => value is PickleTuple tuple && tuple.All(item => item is long) ? [.. tuple.Cast<long>()] : null;

    private static bool Fits(long[] shape, long[] strides, long offset, long count)
    {
        if (shape.Length != strides.Length || offset < 0 || shape.Any(side => side < 0) || strides.Any(stride => stride < 0)) return false;
        // An expanded tensor (stride 0) may have more elements than its storage; a file must not make us allocate without end.
        Int128 last = offset, product = 1;
        for (int i = 0; i < shape.Length; i++)
        {
            last += (Int128)Math.Max(0, shape[i] - 1) * strides[i];
            product *= shape[i];
            if (last > long.MaxValue || product > long.MaxValue) return false;
        }
        return product == 0 ? offset <= count : last < count && product <= Math.Max(count, 1L << 28);
    }

    private string FindArchive()
    {
        var pickles = _zip.Records.Keys.Where(name => name.EndsWith("/data.pkl", StringComparison.Ordinal)).ToList();
        if (pickles.Count != 1)
            throw new PickleFormatException(Path, $"it holds {pickles.Count} records data.pkl, where torch.save writes one", "Check that torch.save wrote this file.");
        string archive = pickles[0][..^"/data.pkl".Length];
        if (_zip.Records.TryGetValue(archive + "/byteorder", out var order) && !_zip.ReadAll(order, 16).AsSpan().SequenceEqual("little"u8))
            throw new PickleFormatException(Path, "its numbers are big-endian", "Save it again on a little-endian machine.");
        return archive;
    }

    private byte[] ReadSmall(string name, int limit) => _zip.ReadAll(_zip.Records[$"{_archive}/{name}"], limit);

    private void ReadRecord(ZipRecord record, Tensor destination, CancellationToken cancellation)
    {
        uint crc = 0;
        if (!TensorBytes.Fill(destination, _file.Handle, record.DataOffset, cancellation, bytes => crc = Crc32.Append(crc, bytes)) || crc != record.Crc)
            throw _zip.Corrupt(record);
    }

    private void ReadDeflated(ZipRecord record, Tensor destination)
    {
        byte[] bytes = _zip.ReadAll(record, int.MaxValue);
        bytes.CopyTo(destination.bytes);
    }
}
