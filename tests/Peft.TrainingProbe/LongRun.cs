using System.Globalization;
using System.Runtime;
using Peft.Llava;
using TorchSharp;

namespace Peft.TrainingProbe;

/// <summary>Many steps: the number of live tensors stays what it is, and resident memory within 1 % of what it was after a warm-up.</summary>
internal static class LongRun
{
    private const double Allowed = 0.01;

    public static int Train(int steps)
    {
        string folder = Directory.CreateTempSubdirectory("peft-long-").FullName;
        try
        {
            int warmUp = Math.Min(500, steps / 4);
            var watch = new Watch(warmUp, Math.Max(1, steps / 20));
            using (var run = new ProbeRun(folder, steps, OptimizerKind.AdamW, save: false, watch)) run.Trainer.Train();
            double growth = (double)watch.Last / watch.Base - 1;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{steps} steps: {watch.Tensors} live tensors, {(watch.Constant ? "constant" : "NOT CONSTANT")}; resident {watch.Base / 1e6:F1} MB after step {warmUp}, {watch.Last / 1e6:F1} MB at the end: {growth:+0.00%;-0.00%}"));
            return watch.Constant && growth <= Allowed ? 0 : 1;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private sealed class Watch(int warmUp, int every) : ITrainingObserver
    {
        public long Tensors { get; private set; } = -1;

        public bool Constant { get; private set; } = true;

        public long Base { get; private set; }

        public long Last { get; private set; }

        public TrainingVerdict OnStep(StepReport report)
        {
            long live = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
            if (report.Step == warmUp) Tensors = live;
            if (report.Step > warmUp && live != Tensors) Constant = false;
            if (report.Step != warmUp && report.Step % every != 0) return TrainingVerdict.Continue;
            Last = Resident();
            if (report.Step == warmUp) Base = Last;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"step {report.Step}: {live} tensors, {Last / 1e6:F1} MB resident, {GC.GetTotalMemory(false) / 1e6:F2} MB of them managed"));
            return TrainingVerdict.Continue;
        }

        // What waits for the collector is not what the training holds.
        private static long Resident()
        {
            GCSettings.LargeObjectHeapCompactionMode = GCLargeObjectHeapCompactionMode.CompactOnce;
            GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            GC.WaitForPendingFinalizers();
            GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            using var process = System.Diagnostics.Process.GetCurrentProcess();
            return process.WorkingSet64;
        }
    }
}
