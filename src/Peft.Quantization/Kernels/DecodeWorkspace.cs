using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Buffers into which packed weights are decoded for one use, shared by the layers of a model: one buffer per dtype and device, as large
/// as the largest weight (one more for each further thread that decodes at the same time), so that a training step allocates none.
/// </summary>
/// <remarks>Thread-safe.</remarks>
public sealed class DecodeWorkspace : IDisposable
{
    private readonly Lock _gate = new();
    private readonly List<Tensor> _idle = [];
    private long _heldBytes;

    /// <summary>Bytes of all buffers made so far and still held.</summary>
    public long HeldBytes => Interlocked.Read(ref _heldBytes);

    /// <summary>Frees the idle buffers; they are made again when needed.</summary>
    public void Clear()
    {
        lock (_gate)
        {
            foreach (var buffer in _idle) Drop(buffer);
            _idle.Clear();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Clear();

    /// <summary>Borrows a (rows, columns) tensor of unknown content until the lease is disposed.</summary>
    internal Lease Rent(long rows, long columns, ScalarType dtype, Device device)
    {
        long count = rows * columns;
        Tensor? buffer = null;
        lock (_gate)
        {
            int index = _idle.FindIndex(b => b.dtype == dtype && b.device_type == device.type && b.device_index == device.index);
            if (index >= 0)
            {
                buffer = _idle[index];
                _idle.RemoveAt(index);
            }
        }
        if (buffer is null || buffer.shape[0] < count)
        {
            if (buffer is not null) Drop(buffer);
            buffer = empty([count], dtype, device).DetachFromDisposeScope();
            Interlocked.Add(ref _heldBytes, count * buffer.element_size());
        }
        using var part = buffer.narrow(0, 0, count);
        return new Lease(this, buffer, part.view(rows, columns));
    }

    private void Drop(Tensor buffer)
    {
        Interlocked.Add(ref _heldBytes, -buffer.numel() * buffer.element_size());
        buffer.Dispose();
    }

    private void Return(Tensor buffer)
    {
        lock (_gate) _idle.Add(buffer);
    }

    /// <summary>A borrowed buffer.</summary>
    internal readonly struct Lease(DecodeWorkspace owner, Tensor buffer, Tensor view) : IDisposable
    {
        /// <summary>(rows, columns).</summary>
        public Tensor Tensor => view;

        public void Dispose()
        {
            view.Dispose();
            owner.Return(buffer);
        }
    }
}
