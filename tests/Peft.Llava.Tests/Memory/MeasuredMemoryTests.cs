using System.Diagnostics;
using System.Globalization;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Memory;

/// <summary>The estimate against the anonymous resident memory of a process that trains.</summary>
public sealed class MeasuredMemoryTests
{
    private const string Configuration =
#if DEBUG
        "Debug";
#else
        "Release";
#endif

    [Theory]
    [InlineData("lora_bf16")]
    [InlineData("lora_fp32_ckpt")]
    [InlineData("qlora_nf4_ckpt")]
    public void The_estimate_is_within_a_tenth_of_the_measured_peak(string name)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "reads /proc");
        string probe = Path.Combine(Repository.Root, "tests", "Peft.MemoryProbe", "bin", Configuration, "net10.0", "Peft.MemoryProbe.dll");
        var start = new ProcessStartInfo("dotnet", [probe, name]) { RedirectStandardOutput = true };
        // Tensors as mappings of their own: without the holes of glibc's heap, which are no need of the training (docs/memory.md).
        start.Environment["PEFT_NATIVE_ALLOCATOR"] = "default";
        start.Environment["MALLOC_MMAP_THRESHOLD_"] = "262144";
        using var process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        string[] words = output.TrimEnd().Split('\n')[^1].Split(' ');
        double measured = double.Parse(words[1], CultureInfo.InvariantCulture), estimated = double.Parse(words[3], CultureInfo.InvariantCulture);
        Assert.True(Math.Abs(estimated - measured) <= 0.1 * measured, output);
    }
}
