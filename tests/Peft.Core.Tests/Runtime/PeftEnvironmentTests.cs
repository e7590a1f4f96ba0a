using Peft.Testing;
using TorchSharp;
using Xunit;

namespace Peft.Core.Tests;

public sealed class PeftEnvironmentTests
{
    [Fact]
    public void The_report_of_a_working_process_has_versions_threads_and_instructions()
    {
        var report = PeftEnvironment.Diagnose();
        Assert.True(report.IsLibtorchLoaded, report.ToString());
        Assert.StartsWith(report.LibtorchFound!, report.LibtorchWanted, StringComparison.Ordinal);
        Assert.Equal(torch.get_num_threads(), report.Threads.Operation);
        Assert.NotEmpty(report.Simd);
        Assert.Contains(report.NativeFiles, f => f.Path.Contains("torch_cpu", StringComparison.Ordinal) && f.Error is null);
        Assert.Equal(torch.cuda.is_available(), report.IsCudaAvailable);
        string text = report.ToString();
        foreach (string fact in new[] { "libtorch          loaded, version " + report.LibtorchFound, "SIMD", "CUDA", "threads", "TorchSharp" })
            Assert.Contains(fact, text, StringComparison.Ordinal);
        PeftEnvironment.EnsureLibtorch();
    }

    [LinuxFact]
    public void On_Linux_the_report_has_the_wanted_and_the_found_symbol_versions_and_the_page_fault_switch()
    {
        var report = PeftEnvironment.Diagnose();
        Assert.Equal("1", report.PageFaultSwitch);
        var glibc = Assert.Single(report.SystemVersions, v => v.Family == "GLIBC");
        Assert.Equal(new Version(2, 34), glibc.Wanted);
        Assert.True(glibc.IsSatisfied, glibc.ToString());
        var libstdcxx = Assert.Single(report.SystemVersions, v => v.Family == "GLIBCXX");
        Assert.Equal(new Version(3, 4, 32), libstdcxx.Wanted);
        Assert.Equal("libLibTorchSharp.so", libstdcxx.WantedBy);
        Assert.NotNull(libstdcxx.Found);
        Assert.Equal(libstdcxx.Found >= new Version(3, 4, 32), libstdcxx.IsSatisfied);
    }

    [Fact]
    public void An_old_system_library_is_told_with_both_versions()
    {
        var version = new SystemVersionReport("GLIBCXX", new Version(3, 4, 32), "libx.so", new Version(3, 4, 9), "/lib/libstdc++.so.6");
        Assert.False(version.IsSatisfied);
        Assert.Equal("wanted 3.4.32 (by libx.so), found 3.4.9 (/lib/libstdc++.so.6): TOO OLD", version.ToString());
        Assert.Equal("wanted 3.4.32 (by libx.so), found none: TOO OLD", (version with { Found = null, FoundIn = null }).ToString());
    }

    [LinuxFact]
    public void The_page_fault_switch_of_the_user_is_left_alone()
    {
        using var probe = new ProbeProcess();
        var (code, output) = probe.Run("diagnose", ("THP_MEM_ALLOC_ENABLE", "0"));
        Assert.Equal(0, code);
        Assert.Contains("THP_MEM_ALLOC_ENABLE=0", output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void Threads_spin_briefly_unless_the_user_says_how_they_wait()
    {
        using var probe = new ProbeProcess();
        Assert.Contains("GOMP_SPINCOUNT=1000", probe.Run("diagnose").Output, StringComparison.Ordinal);
        Assert.Contains("GOMP_SPINCOUNT=77", probe.Run("diagnose", ("GOMP_SPINCOUNT", "77")).Output, StringComparison.Ordinal);
        Assert.Contains("thread spinning   unset", probe.Run("diagnose", ("OMP_WAIT_POLICY", "active")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public void The_level_of_the_processor_and_what_each_part_uses_are_told()
    {
        var cpu = PeftEnvironment.Diagnose().Cpu;
        Assert.Equal((CpuLevels.Hardware, CpuLevels.Process), (cpu.Hardware, cpu.Process));
        Assert.Equal(cpu.Hardware >= CpuLevel.Avx512 ? 512 : cpu.Hardware == CpuLevel.Avx2 ? 256 : 128, cpu.VectorBits);
        Assert.Null(cpu.Problem);
        Assert.Contains($"CPU level         {CpuLevels.NameOf(cpu.Process)}", PeftEnvironment.Diagnose().ToString(), StringComparison.Ordinal);
        foreach (string line in ProductChoice.Describe()) Assert.Contains($"products          {line}\n", PeftEnvironment.Diagnose().ToString(), StringComparison.Ordinal);
    }

    [LinuxFact]
    public void A_level_asked_for_reaches_libtorch_and_its_libraries_before_they_load()
    {
        using var probe = new ProbeProcess();
        var (code, output) = probe.Run("diagnose", ("PEFT_CPU_LEVEL", "Vector128"));
        Assert.Equal(0, code);
        Assert.Contains("CPU level         vector128", output, StringComparison.Ordinal);
        Assert.Contains("(PEFT_CPU_LEVEL is Vector128)", output, StringComparison.Ordinal);
        Assert.Contains("; ATen uses DEFAULT; oneDNN is bounded to SSE41; MKL is bounded to SSE4_2", output, StringComparison.Ordinal);
        Assert.Contains("; ATen uses DEFAULT; oneDNN is bounded to AVX; MKL is bounded to SSE4_2",
            probe.Run("diagnose", ("PEFT_CPU_LEVEL", "vector128"), ("ONEDNN_MAX_CPU_ISA", "AVX")).Output, StringComparison.Ordinal);
        Assert.Contains("(PEFT_CPU_LEVEL unset)", probe.Run("diagnose", ("PEFT_CPU_LEVEL", "")).Output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void A_level_above_the_processor_is_that_of_the_processor()
    {
        using var probe = new ProbeProcess();
        string output = probe.Run("diagnose", ("PEFT_CPU_LEVEL", "avx512bf16"), ("DOTNET_EnableAVX512", "0")).Output;
        Assert.Contains($"CPU level         {CpuLevels.NameOf(CpuLevels.Hardware < CpuLevel.Avx2 ? CpuLevels.Hardware : CpuLevel.Avx2)} (PEFT_CPU_LEVEL is avx512bf16)", output, StringComparison.Ordinal);
        Assert.DoesNotContain("ATen uses AVX512", output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void The_width_of_NET_is_lowered_by_its_launcher()
    {
        using var probe = new ProbeProcess();
        string output = probe.Run("diagnose", ("PEFT_CPU_LEVEL", "vector128"), ("DOTNET_EnableAVX2", "0")).Output;
        Assert.Contains("CPU level         vector128 (PEFT_CPU_LEVEL is vector128); .NET uses vectors of 128 bits", output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void A_level_that_does_not_exist_is_named_in_the_report_and_refused()
    {
        using var probe = new ProbeProcess();
        string output = probe.Run("diagnose", ("PEFT_CPU_LEVEL", "avx51")).Output;
        Assert.Contains("oneDNN is not bounded; MKL is not bounded. NOT OBEYED: PEFT_CPU_LEVEL is 'avx51', which is none of vector128, avx2, avx512, avx512bf16; did you mean avx512?",
            output, StringComparison.Ordinal);
        Assert.Equal((1, "PEFT_CPU_LEVEL is '1', which is none of vector128, avx2, avx512, avx512bf16. Correct the environment variable, or unset it to use what the processor has."),
            probe.Run("ensure", ("PEFT_CPU_LEVEL", "1")));
        Assert.Equal("PEFT_CPU_LEVEL is 'x'. Correct the environment variable, or unset it to use what the processor has.", new CpuLevelException("x", "PEFT_CPU_LEVEL is 'x'").Message);
    }

    [LinuxFact]
    public void A_hidden_dependent_library_is_named()
    {
        using var probe = new ProbeProcess();
        probe.Hide("libc10.so");
        var (code, output) = probe.Run("diagnose");
        Assert.Equal(1, code);
        Assert.Contains("NOT LOADED, wanted 2.10.0.0", output, StringComparison.Ordinal);
        Assert.Contains("libc10.so: cannot open shared object file", output, StringComparison.Ordinal);
        Assert.Contains("  missing         libc10.so", output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void EnsureLibtorch_throws_the_report()
    {
        using var probe = new ProbeProcess();
        probe.Hide("libtorch_cpu.so");
        var (code, output) = probe.Run("ensure");
        Assert.Equal(1, code);
        Assert.StartsWith("libtorch 2.10.0.0 cannot be loaded: LibTorchSharp does not load: ", output, StringComparison.Ordinal);
        Assert.Contains("Restore what is missing below, or clean the output folder and build again.", output, StringComparison.Ordinal);
        Assert.Contains("  missing         libtorch_cpu.so", output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void Without_any_native_file_the_exception_names_the_package_to_add()
    {
        using var probe = new ProbeProcess();
        Directory.Delete(probe.NativeFolder, recursive: true);
        var (code, output) = probe.Run("ensure");
        Assert.Equal(1, code);
        Assert.Contains("Add a libtorch package to the application: " + PeftEnvironment.LibtorchPackage, output, StringComparison.Ordinal);
    }

    [LinuxFact]
    public void A_home_folder_that_cannot_be_written_does_not_stop_the_load()
    {
        using var probe = new ProbeProcess();
        var (code, output) = probe.Run("ensure", ("XDG_DATA_HOME", "/dev/null/nowhere"), ("HOME", "/dev/null/nowhere"));
        Assert.True(code == 0, output);
    }
}
