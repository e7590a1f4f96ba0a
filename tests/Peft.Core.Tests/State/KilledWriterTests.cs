using System.Diagnostics;
using Peft.Testing;
using TorchSharp;
using Xunit;

namespace Peft.Core.Tests;

public sealed class KilledWriterTests
{
    [Fact]
    public void A_process_killed_while_it_saves_leaves_whole_files()
    {
        var random = new Random(17);
        using var folder = new TemporaryFolder();
        for (int kill = 0; kill < 12; kill++)
        {
            Kill(folder.Path, random.Next(1, 120));
            AssertWhole(SafetensorsReader.Open(Path.Combine(folder.Path, "adapter_model.safetensors")));
            AssertWhole(PickleReader.Open(Path.Combine(folder.Path, "non_lora_trainables.bin")));
        }
    }

    private static void Kill(string folder, int milliseconds)
    {
        string configuration = AppContext.BaseDirectory.Contains("Release", StringComparison.Ordinal) ? "Release" : "Debug";
        string probe = Path.Combine(Repository.Root, "tests", "Peft.Probe", "bin", configuration, "net10.0", "Peft.Probe.dll");
        using var process = Process.Start(new ProcessStartInfo("dotnet", [probe, "save", folder]) { RedirectStandardOutput = true })!;
        Assert.Equal("saved", process.StandardOutput.ReadLine());
        Thread.Sleep(milliseconds);
        process.Kill();
        process.WaitForExit();
    }

    private static void AssertWhole(ITensorReader reader)
    {
        using (reader)
        {
            Assert.Equal(["first", "second"], reader.Entries.Keys.Order(StringComparer.Ordinal));
            using var first = reader.Load("first");
            using var second = reader.Load("second");
            using var same = first.eq(second.min());
            Assert.True(same.all().ToBoolean());
        }
    }
}
