using Xunit;

namespace Peft.Core.Tests;

[Trait("Level", "any")]
public sealed class CpuLevelsTests
{
    // The display name tells which levels of the processor the tests of this process can run.
    public static IEnumerable<TheoryDataRow<string>> Levels()
    {
        var left = Enum.GetValues<CpuLevel>().Except(CpuLevels.Supported).Select(CpuLevels.NameOf).ToList();
        string ran = string.Join(", ", CpuLevels.Supported.Select(CpuLevels.NameOf));
        yield return new TheoryDataRow<string>(ran)
        {
            TestDisplayName = $"levels that run here: {ran}{(left.Count == 0 ? "" : $" (not: {string.Join(", ", left)})")}",
            Label = "",
        };
    }

    [Theory, MemberData(nameof(Levels))]
    public void The_levels_are_all_up_to_that_of_the_process(string ran)
    {
        Assert.StartsWith("vector128", ran, StringComparison.Ordinal);
        Assert.EndsWith(CpuLevels.NameOf(CpuLevels.Process), ran, StringComparison.Ordinal);
        Assert.Equal((int)CpuLevels.Process + 1, CpuLevels.Supported.Count);
        TestContext.Current.TestOutputHelper?.WriteLine(PeftEnvironment.Diagnose().Cpu.ToString());
    }

    [Fact]
    public void A_forced_level_holds_until_it_is_disposed()
    {
        Assert.Equal(CpuLevels.Process, CpuLevels.Current);
        Assert.Equal(CpuLevels.Process, CpuLevels.Supported[^1]);
        foreach (var level in CpuLevels.Supported)
        {
            using (CpuLevels.Force(level)) Assert.Equal(level, CpuLevels.Current);
            Assert.Equal(CpuLevels.Process, CpuLevels.Current);
        }
    }

    [Fact]
    public void A_level_that_the_process_cannot_run_is_refused()
    {
        if (CpuLevels.Process == CpuLevel.Avx512Bf16) return;
        var e = Assert.Throws<ArgumentOutOfRangeException>(() => CpuLevels.Force(CpuLevel.Avx512Bf16));
        Assert.Contains($"This process runs at most {CpuLevels.Process}. Force one of: {string.Join(", ", CpuLevels.Supported)}.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Levels_have_the_names_of_the_environment_variable()
    {
        Assert.Equal("vector128 avx2 avx512 avx512bf16", string.Join(' ', Enum.GetValues<CpuLevel>().Select(CpuLevels.NameOf)));
        var e = Assert.Throws<ArgumentOutOfRangeException>(() => CpuLevels.NameOf((CpuLevel)9));
        Assert.Contains("Not a level. Name one of: Vector128, Avx2, Avx512, Avx512Bf16.", e.Message, StringComparison.Ordinal);
    }
}
