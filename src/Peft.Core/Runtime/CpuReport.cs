using System.Text;

namespace Peft.Core;

/// <summary>The level of the processor that each part of this process uses.</summary>
public sealed record CpuReport
{
    /// <summary>What <see cref="CpuLevels.Variable"/> holds; null if it is unset.</summary>
    public required string? Requested { get; init; }

    /// <summary>Why <see cref="Requested"/> is not obeyed: it names no level. Null where there is no problem.</summary>
    public required string? Problem { get; init; }

    /// <summary>The level of the processor, as far as .NET may use it.</summary>
    public required CpuLevel Hardware { get; init; }

    /// <summary>The level of this process.</summary>
    public required CpuLevel Process { get; init; }

    /// <summary>Bits of the widest vectors that .NET uses.</summary>
    public required int VectorBits { get; init; }

    /// <summary>Whether the processor has AVX-512, whether .NET may use it or not.</summary>
    public required bool ProcessorHasAvx512 { get; init; }

    /// <summary>What libtorch says its own kernels use, e.g. <c>AVX2</c>; null if it cannot be asked (libtorch not loaded, not Linux on x64).</summary>
    public required string? Aten { get; init; }

    /// <summary>The bound of oneDNN (<c>ONEDNN_MAX_CPU_ISA</c>) as native code sees it; null if unset or not on Linux.</summary>
    public required string? OneDnn { get; init; }

    /// <summary>The bound of MKL (<c>MKL_ENABLE_INSTRUCTIONS</c>) as native code sees it; null if unset or not on Linux.</summary>
    public required string? Mkl { get; init; }

    /// <summary>The report in one line.</summary>
    public override string ToString()
    {
        var text = new StringBuilder(CpuLevels.NameOf(Process));
        if (Process != Hardware) text.Append(null, $" of a processor with {CpuLevels.NameOf(Hardware)}");
        text.Append(null, $" ({CpuLevels.Variable} {(Requested is null ? "unset" : $"is {Requested}")})");
        text.Append(null, $"; .NET uses vectors of {VectorBits} bits{(ProcessorHasAvx512 && VectorBits < 512 ? " although the processor has AVX-512" : "")}");
        text.Append(null, $"; ATen uses {Aten ?? "what it does not say"}");
        text.Append(null, $"; oneDNN is {(OneDnn is null ? "not bounded" : $"bounded to {OneDnn}")}");
        text.Append(null, $"; MKL is {(Mkl is null ? "not bounded" : $"bounded to {Mkl}")}");
        if (Problem is not null) text.Append(null, $". NOT OBEYED: {Problem}");
        return text.ToString();
    }
}
