using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Memory for optimizer states in a mapped file: the system writes pages out when memory is short and reads them back when they are used,
/// so states may be larger than memory. The file is made anew and removed at the end.
/// </summary>
internal sealed class PagedMemory : IDisposable
{
    private const long Alignment = 4096;
    private readonly string _file;
    private readonly Tensor _bytes;
    private readonly Tensor _floats;
    private long _used;

    public PagedMemory(string file, long bytes)
    {
        _file = file;
        long size = Math.Max(Alignment, Rounded(bytes));
        // A new, sparse file: nothing is written until a state is.
        using (var stream = new FileStream(file, FileMode.Create, FileAccess.ReadWrite)) stream.SetLength(size);
        _bytes = from_file(file, shared: true, size: size, dtype: ScalarType.Byte).DetachFromDisposeScope();
        _floats = from_file(file, shared: true, size: size / 4, dtype: ScalarType.Float32).DetachFromDisposeScope();
    }

    public static long Rounded(long bytes) => (bytes + Alignment - 1) / Alignment * Alignment;

    /// <summary>The next piece, zeroed, detached from dispose scopes.</summary>
    public Tensor Take(long[] shape, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        long count = shape.Aggregate(1L, (product, side) => product * side), size = dtype == ScalarType.Byte ? 1 : 4;
        var piece = (size == 1 ? _bytes : _floats).narrow(0, _used / size, count).view(shape);
        _used += Rounded(count * size);
        piece.zero_();
        return piece.DetachFromDisposeScope();
    }

    /// <summary>Forgets all pieces.</summary>
    public void Rewind() => _used = 0;

    public void Dispose()
    {
        _bytes.Dispose();
        _floats.Dispose();
        File.Delete(_file);
    }
}
