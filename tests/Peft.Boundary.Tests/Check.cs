using Xunit;

namespace Peft.Boundary.Tests;

internal static class Check
{
    /// <summary>Fails with every item on a line of its own, which Assert.Empty cuts short.</summary>
    public static void None(IEnumerable<string> items)
    {
        var found = items.Distinct().ToList();
        if (found.Count > 0) Assert.Fail($"{found.Count} found:\n" + string.Join('\n', found));
    }
}
