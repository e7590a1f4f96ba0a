using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>Native memory that products pack into, kept from one product to the next. Thread-safe.</summary>
internal static unsafe class NativeBuffers
{
    private const nuint Alignment = 64;
    private static readonly Lock Gate = new();
    private static readonly List<(nint Address, long Bytes)> Idle = [];
    private static long _held;

    /// <summary>Bytes that are kept or in use.</summary>
    public static long HeldBytes => Interlocked.Read(ref _held);

    /// <summary>Borrows memory of unknown content.</summary>
    /// <param name="bytes">At least so many.</param>
    /// <returns>64-byte aligned memory; disposing it gives it back.</returns>
    public static Lease Rent(long bytes)
    {
        lock (Gate)
        {
            int best = -1;
            for (int i = 0; i < Idle.Count; i++)
                if (Idle[i].Bytes >= bytes && (best < 0 || Idle[i].Bytes < Idle[best].Bytes)) best = i;
            if (best < 0 && Idle.Count > 0)
            {
                // A larger one takes the place of the largest that is too small.
                int largest = Enumerable.Range(0, Idle.Count).MaxBy(i => Idle[i].Bytes);
                Free(Idle[largest]);
                Idle.RemoveAt(largest);
            }
            if (best >= 0)
            {
                var (address, size) = Idle[best];
                Idle.RemoveAt(best);
                return new Lease(address, size);
            }
        }
        nint made = (nint)NativeMemory.AlignedAlloc((nuint)bytes, Alignment);
        Interlocked.Add(ref _held, bytes);
        return new Lease(made, bytes);
    }

    /// <summary>Frees what is not in use.</summary>
    public static void Clear()
    {
        lock (Gate)
        {
            foreach (var buffer in Idle) Free(buffer);
            Idle.Clear();
        }
    }

    private static void Free((nint Address, long Bytes) buffer)
    {
        NativeMemory.AlignedFree((void*)buffer.Address);
        Interlocked.Add(ref _held, -buffer.Bytes);
    }

    /// <summary>Borrowed memory.</summary>
    internal readonly struct Lease(nint address, long bytes) : IDisposable
    {
        /// <summary>The first byte.</summary>
        public byte* Pointer => (byte*)address;

        public void Dispose()
        {
            lock (Gate) Idle.Add((address, bytes));
        }
    }
}
