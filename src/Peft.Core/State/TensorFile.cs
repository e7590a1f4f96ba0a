using Microsoft.Win32.SafeHandles;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>An open file that tensors are read from or mapped out of.</summary>
internal sealed class TensorFile : IDisposable
{
    private readonly Dictionary<ScalarType, Tensor> _mappings = [];
    private readonly Lock _mapping = new();
    private readonly DateTime _written;

    public TensorFile(string path)
    {
        Path = path;
        try
        {
            // Delete is shared so that a writer may put a new file in this one's place.
            Handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new TensorFileNotFoundException(path, "does not exist", "Check the path.", e);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new TensorFileNotFoundException(path, "cannot be read: " + e.Message.TrimEnd('.'), "Check that it is a file that this user may read.", e);
        }
        Length = RandomAccess.GetLength(Handle);
        _written = File.GetLastWriteTimeUtc(Handle);
    }

    public string Path { get; }

    public SafeFileHandle Handle { get; }

    public long Length { get; }

    /// <summary>Reads up to a number of bytes; fewer only where the file ends.</summary>
    public byte[] Read(long offset, int count)
    {
        byte[] bytes = new byte[(int)Math.Clamp(Length - offset, 0, count)];
        int filled = 0;
        while (filled < bytes.Length)
        {
            int got = RandomAccess.Read(Handle, bytes.AsSpan(filled), offset + filled);
            if (got == 0) return bytes[..filled];
            filled += got;
        }
        return bytes;
    }

    /// <summary>Whether elements at a place can be mapped: libtorch maps whole files, so they must stand at a multiple of their size.</summary>
    public static bool CanMap(ScalarType dtype, long offset) => offset % dtype.ElementSize() == 0;

    /// <summary>A view of the file's elements from a byte on, copy-on-write; the file is opened by its name for it once more.</summary>
    public Tensor Map(ScalarType dtype, long offset, long[] shape, long[]? strides = null)
    {
        using var scope = NewDisposeScope();
        long size = dtype.ElementSize();
        Tensor? whole;
        lock (_mapping)                                          // loaders may map layers in parallel
        {
            ThrowIfChanged();
            if (!_mappings.TryGetValue(dtype, out whole))
            {
                whole = from_file(Path, shared: false, size: Length / size, dtype: dtype).DetachFromDisposeScope();
                _mappings[dtype] = whole;
                ThrowIfChanged();
            }
        }
        var view = strides is null
            ? whole.narrow(0, offset / size, shape.Aggregate(1L, (product, side) => product * side)).view(shape)
            : whole.as_strided(shape, strides, offset / size);
        return view.DetachFromDisposeScope();
    }

    public void Dispose()
    {
        foreach (var mapping in _mappings.Values) mapping.Dispose();
        _mappings.Clear();
        Handle.Dispose();
    }

    // A mapping beyond the end of a file kills the process at the first touch, and a file of another making gives other tensors.
    private void ThrowIfChanged()
    {
        var now = new FileInfo(Path);
        long length = now.Exists ? now.Length : -1;
        if (length != Length || now.LastWriteTimeUtc != _written) throw new TensorFileChangedException(Path, Length, length);
    }
}
