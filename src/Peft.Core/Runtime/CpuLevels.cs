using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>
/// The level at which this process computes on the CPU. Which kernels run and how a product is computed depends on it, on dtypes and on shapes alone.
/// </summary>
/// <remarks>
/// The environment variable <see cref="Variable"/> lowers the level of a whole process, libtorch's included (see <see cref="NativeRuntime"/>);
/// <see cref="Force"/> lowers that of these packages in a flow of control, for tests.
/// </remarks>
public static class CpuLevels
{
    /// <summary>Names the highest level that the process may use: <c>vector128</c>, <c>avx2</c>, <c>avx512</c> or <c>avx512bf16</c>.</summary>
    public const string Variable = "PEFT_CPU_LEVEL";

    private static readonly AsyncLocal<CpuLevel?> Forced = new();

    /// <summary>The highest level of the processor that .NET may use in this process.</summary>
    public static CpuLevel Hardware { get; } = Detect();

    /// <summary>The level of this process: that of the hardware, unless <see cref="Variable"/> names a lower one.</summary>
    public static CpuLevel Process { get; } = Requested() is { } wanted && wanted < Hardware ? wanted : Hardware;

    /// <summary>The level in use: the forced one, else that of the process.</summary>
    public static CpuLevel Current => Forced.Value ?? Process;

    /// <summary>The levels that this process can run, lowest first.</summary>
    public static IReadOnlyList<CpuLevel> Supported { get; } = [.. Enum.GetValues<CpuLevel>().Where(level => level <= Process)];

    /// <summary>Uses a lower level until the result is disposed, in this flow of control. libtorch's own operators stay as they are.</summary>
    /// <param name="level">One of <see cref="Supported"/>.</param>
    /// <returns>Restores the level found.</returns>
    /// <exception cref="ArgumentOutOfRangeException">This process cannot run the level.</exception>
    public static IDisposable Force(CpuLevel level)
    {
        if (level > Process)
            throw new ArgumentOutOfRangeException(nameof(level), level, $"This process runs at most {Process}. Force one of: {string.Join(", ", Supported)}.");
        var before = Forced.Value;
        Forced.Value = level;
        return new AdapterScope(() => Forced.Value = before);
    }

    /// <summary>A level as <see cref="Variable"/> names it.</summary>
    /// <param name="level">The level.</param>
    /// <returns>E.g. <c>avx2</c>.</returns>
    public static string NameOf(CpuLevel level) => level switch
    {
        CpuLevel.Vector128 => "vector128",
        CpuLevel.Avx2 => "avx2",
        CpuLevel.Avx512 => "avx512",
        CpuLevel.Avx512Bf16 => "avx512bf16",
        _ => throw new ArgumentOutOfRangeException(nameof(level), level, $"Not a level. Name one of: {string.Join(", ", Enum.GetValues<CpuLevel>())}."),
    };

    /// <summary>What <see cref="Variable"/> holds; null if it is unset or empty.</summary>
    internal static string? RequestedText() => Environment.GetEnvironmentVariable(Variable) is { } text && text.Trim().Length > 0 ? text.Trim() : null;

    /// <summary>The level that <see cref="Variable"/> names; null if it is unset or names none.</summary>
    internal static CpuLevel? Requested()
    {
        string? text = RequestedText();
        foreach (var level in Enum.GetValues<CpuLevel>())
            if (string.Equals(NameOf(level), text, StringComparison.OrdinalIgnoreCase)) return level;
        return null;
    }

    /// <summary>Why <see cref="Variable"/> is not obeyed; null if it is, or is unset.</summary>
    internal static string? Problem()
    {
        if (RequestedText() is not { } text || Requested() is not null) return null;
        string[] names = [.. Enum.GetValues<CpuLevel>().Select(NameOf)];
#pragma warning disable CA1308 // the names are lower case
        string? meant = NearestName.Find(text.ToLowerInvariant(), names);
#pragma warning restore CA1308
        return $"{Variable} is '{text}', which is none of {string.Join(", ", names)}{(meant is null ? "" : $"; did you mean {meant}?")}";
    }

    private static CpuLevel Detect()
    {
        if (!Avx2.IsSupported || !Fma.IsSupported) return CpuLevel.Vector128;
        if (!Avx512F.VL.IsSupported || !Avx512BW.VL.IsSupported || !Avx512DQ.VL.IsSupported) return CpuLevel.Avx2;
        return CpuFeatures.HasBFloat16Products ? CpuLevel.Avx512Bf16 : CpuLevel.Avx512;
    }
}
