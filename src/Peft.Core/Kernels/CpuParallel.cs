using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using TorchSharp;

namespace Peft.Core;

/// <summary>
/// Runs a CPU kernel on libtorch's own threads.
/// </summary>
/// <remarks>
/// libtorch's OpenMP workers spin for a while after each operator, so a second thread pool beside them competes for the same cores
/// (measured: a kernel of 1.1 ms took 2.4 ms right after a matrix product). On Linux the kernel is therefore run inside the same OpenMP
/// team through <c>GOMP_parallel</c>, which starts in under a microsecond; elsewhere <see cref="Parallel"/> does the work.
/// </remarks>
public static unsafe class CpuParallel
{
    private static readonly OpenMp? Team = OpenMp.Find();

    /// <summary>Which threads run the kernels: "OpenMP" (libtorch's) or "ThreadPool".</summary>
    public static string Backend => Team is null ? "ThreadPool" : "OpenMP";

    /// <summary>Splits <c>0 … count-1</c> into at most one range per libtorch thread and runs them side by side.</summary>
    /// <param name="count">How many items.</param>
    /// <param name="grain">Ranges start at multiples of this; fewer items than this run on the calling thread.</param>
    /// <param name="body">Gets the range's first item and the one after its last. Must not call torch operators.</param>
    /// <exception cref="AggregateException">More than one range failed; a single failure is rethrown as it is.</exception>
    public static void For(long count, long grain, Action<long, long> body)
    {
        ArgumentNullException.ThrowIfNull(body);
        ArgumentOutOfRangeException.ThrowIfLessThan(grain, 1);
        if (count <= 0) return;
        long units = (count + grain - 1) / grain;
        int threads = (int)Math.Min(units, torch.get_num_threads());
        if (threads <= 1)
        {
            body(0, count);
            return;
        }
        var work = new Work(count, grain, units, body);
        if (Team is { } team) team.Run(work, threads);
        else Parallel.For(0, threads, new ParallelOptions { MaxDegreeOfParallelism = threads }, part => work.Run(part, threads));
        work.ThrowIfFailed();
    }

    private sealed class Work(long count, long grain, long units, Action<long, long> body)
    {
        private readonly Lock _gate = new();
        private List<Exception>? _failures;

        public void Run(int part, int parts)
        {
            long begin = units * part / parts * grain;
            long end = Math.Min(count, units * (part + 1) / parts * grain);
            if (begin >= end) return;
            try
            {
                body(begin, end);
            }
#pragma warning disable CA1031 // an exception must not cross the native frames of the team; it is rethrown on the calling thread
            catch (Exception e)
#pragma warning restore CA1031
            {
                lock (_gate) (_failures ??= []).Add(e);
            }
        }

        public void ThrowIfFailed()
        {
            if (_failures is null) return;
            if (_failures.Count == 1) ExceptionDispatchInfo.Throw(_failures[0]);
            throw new AggregateException(_failures);
        }
    }

    private sealed class OpenMp
    {
        private readonly delegate* unmanaged<delegate* unmanaged<void*, void>, void*, uint, uint, void> _parallel;
        private readonly delegate* unmanaged<int> _threadNumber;
        private readonly delegate* unmanaged<int> _threadCount;

        private OpenMp(IntPtr library)
        {
            _parallel = (delegate* unmanaged<delegate* unmanaged<void*, void>, void*, uint, uint, void>)NativeLibrary.GetExport(library, "GOMP_parallel");
            _threadNumber = (delegate* unmanaged<int>)NativeLibrary.GetExport(library, "omp_get_thread_num");
            _threadCount = (delegate* unmanaged<int>)NativeLibrary.GetExport(library, "omp_get_num_threads");
        }

        private static OpenMp? _instance;

        /// <summary>The OpenMP library that libtorch has loaded into this process, or null.</summary>
        public static OpenMp? Find()
        {
            if (!OperatingSystem.IsLinux()) return null;
            _ = torch.get_num_threads();                    // loads libtorch, and with it its OpenMP library
            string? path = File.ReadLines("/proc/self/maps")
                .Select(line => line.IndexOf('/', StringComparison.Ordinal) is >= 0 and var at ? line[at..] : "")
                .FirstOrDefault(file => Path.GetFileName(file).StartsWith("libgomp", StringComparison.Ordinal));
            if (path is null || !NativeLibrary.TryLoad(path, out var library)) return null;
            bool complete = NativeLibrary.TryGetExport(library, "GOMP_parallel", out _)
                && NativeLibrary.TryGetExport(library, "omp_get_thread_num", out _)
                && NativeLibrary.TryGetExport(library, "omp_get_num_threads", out _);
            return complete ? _instance = new OpenMp(library) : null;
        }

        public void Run(Work work, int threads)
        {
            var handle = GCHandle.Alloc(work);
            try
            {
                _parallel(&Enter, (void*)GCHandle.ToIntPtr(handle), (uint)threads, 0);
            }
            finally
            {
                handle.Free();
            }
        }

        [UnmanagedCallersOnly]
        private static void Enter(void* data)
            => ((Work)GCHandle.FromIntPtr((IntPtr)data).Target!).Run(_instance!._threadNumber(), _instance._threadCount());
    }
}
