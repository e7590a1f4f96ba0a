using Microsoft.Win32.SafeHandles;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Moves the bytes of tensors of any size between memory and files, in pieces that a span can hold.</summary>
internal static class TensorBytes
{
    private const long Piece = 64L << 20;

    /// <summary>Calls back with each piece of the tensor's elements in row-major order.</summary>
    public static void Visit(Tensor tensor, ReadOnlySpanAction action, CancellationToken cancellation)
    {
        if (tensor.numel() == 0) return;
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var flat = tensor.detach().cpu().contiguous().view(-1);
        long step = Math.Max(1, Piece / flat.dtype.ElementSize());
        for (long begin = 0; begin < flat.numel(); begin += step)
        {
            cancellation.ThrowIfCancellationRequested();
            using var part = flat.narrow(0, begin, Math.Min(step, flat.numel() - begin));
            action(part.bytes);
        }
    }

    /// <summary>Fills a fresh contiguous CPU tensor from a file; false if the file ends too early.</summary>
    public static bool Fill(Tensor tensor, SafeFileHandle file, long offset, CancellationToken cancellation, ReadOnlySpanAction? seen = null)
    {
        if (tensor.numel() == 0) return true;
        using var scope = NewDisposeScope();
        var flat = tensor.view(-1);
        long size = flat.dtype.ElementSize();
        long step = Math.Max(1, Piece / size);
        for (long begin = 0; begin < flat.numel(); begin += step)
        {
            cancellation.ThrowIfCancellationRequested();
            using var part = flat.narrow(0, begin, Math.Min(step, flat.numel() - begin));
            var bytes = part.bytes;
            long at = offset + begin * size;
            while (bytes.Length > 0)
            {
                int got = RandomAccess.Read(file, bytes, at);
                if (got == 0) return false;
                bytes = bytes[got..];
                at += got;
            }
            seen?.Invoke(part.bytes);
        }
        return true;
    }

    internal delegate void ReadOnlySpanAction(ReadOnlySpan<byte> bytes);
}
