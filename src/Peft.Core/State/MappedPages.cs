using System.Buffers.Binary;
using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The resident memory of tensors that are mapped from a file.</summary>
/// <remarks>On Linux; elsewhere nothing happens. Advice only: where the system refuses, the memory stays resident.</remarks>
public static class MappedPages
{
    private const int DontNeed = 4;                     // MADV_DONTNEED
    private const string PageTable = "/proc/self/pagemap";
    private const ulong PresentOfFile = 1UL << 63 | 1UL << 61;
    private const int EntriesPerRead = 8192;

    /// <summary>
    /// Gives a tensor's pages back to the system, so that they no longer count as resident: after a weight was quantised or converted, the
    /// file's own pages are of no more use, but stay in memory as long as any tensor of the same file is mapped.
    /// </summary>
    /// <param name="tensor">
    /// A contiguous tensor on the CPU that is about to be disposed and that nobody has written to. A mapped one would be read from its file again;
    /// the content of another one is lost.
    /// </param>
    public static unsafe void Release(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (RangeOf(tensor) is { } range) Advise(range.WholePages());
    }

    /// <summary>
    /// Gives back the pages that hold what their file holds; the next use maps them again, without reading the file as long as the system caches
    /// it. Worth calling for weights that a step uses once, such as a frozen vision tower's: they no longer count while the rest of the step runs.
    /// </summary>
    /// <param name="tensors">
    /// Any tensors. Pages that were written to since they were mapped, and memory that is of no file, stay as they are. No other thread may
    /// write to the tensors meanwhile.
    /// </param>
    /// <returns>Bytes given back.</returns>
    public static long ReleaseUnwritten(IEnumerable<Tensor> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        if (!OperatingSystem.IsLinux()) return 0;
        long released = 0;
        try
        {
            using var table = File.OpenHandle(PageTable);
            foreach (var range in Joined(tensors)) released += ReleaseUnwritten(table, range);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The system does not say which pages are of a file: then none is given back.
        }
        return released;
    }

    /// <summary>
    /// Writes a whole tensor. Where it is mapped from a file, its pages are given back first: a page that is mapped for reading costs an interrupt
    /// of every core when it is written, one that is not mapped costs none.
    /// </summary>
    internal static void Overwrite(Tensor target, Tensor source)
    {
        using var noGrad = no_grad();
        ReleaseUnwritten([target]);
        target.copy_(source);
    }

    private static long ReleaseUnwritten(Microsoft.Win32.SafeHandles.SafeFileHandle table, Range range)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        var whole = range.WholePages();
        var entries = new byte[8 * EntriesPerRead];
        long released = 0;
        ulong run = whole.Begin;            // The pages of [run, at) hold what their file holds.
        for (ulong at = whole.Begin; at < whole.End;)
        {
            int wanted = (int)Math.Min(EntriesPerRead, (whole.End - at) / page);
            int read = RandomAccess.Read(table, entries.AsSpan(0, 8 * wanted), (long)(at / page * 8)) / 8;
            if (read == 0) break;
            for (int i = 0; i < read; i++, at += page)
            {
                if ((BinaryPrimitives.ReadUInt64LittleEndian(entries.AsSpan(8 * i)) & PresentOfFile) == PresentOfFile) continue;
                released += Advise(new(run, at));
                run = at + page;
            }
            released += Advise(new(run, at));
            run = at;
        }
        return released;
    }

    /// <summary>The tensors' memory in order, joined where one ends at the next: what lies between two may be anybody's.</summary>
    private static List<Range> Joined(IEnumerable<Tensor> tensors)
    {
        var joined = new List<Range>();
        foreach (var range in tensors.Select(RangeOf).OfType<Range>().OrderBy(r => r.Begin))
        {
            if (joined.Count > 0 && range.Begin <= joined[^1].End)
                joined[^1] = new(joined[^1].Begin, Math.Max(joined[^1].End, range.End));
            else
                joined.Add(range);
        }
        return joined;
    }

    private static unsafe Range? RangeOf(Tensor tensor)
    {
        if (!OperatingSystem.IsLinux() || tensor.device_type != TorchSharp.DeviceType.CPU || !tensor.is_contiguous() || tensor.numel() == 0) return null;
        ulong begin = (ulong)CpuTensor.Pointer(tensor);
        return new(begin, begin + (ulong)(tensor.numel() * tensor.element_size()));
    }

    private static unsafe long Advise(Range pages)
        => pages.End > pages.Begin && Advise((void*)pages.Begin, (nuint)(pages.End - pages.Begin), DontNeed) == 0 ? (long)(pages.End - pages.Begin) : 0;

    [DllImport("libc", EntryPoint = "madvise")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern unsafe int Advise(void* address, nuint length, int advice);

    /// <summary>Addresses.</summary>
    private readonly record struct Range(ulong Begin, ulong End)
    {
        /// <summary>The pages that are of this range alone.</summary>
        public Range WholePages()
        {
            ulong page = (ulong)Environment.SystemPageSize;
            return new((Begin + page - 1) / page * page, End / page * page);
        }
    }
}
