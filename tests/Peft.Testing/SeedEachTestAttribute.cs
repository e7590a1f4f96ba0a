using System.Reflection;
using TorchSharp;
using Xunit.v3;

namespace Peft.Testing;

/// <summary>
/// Put on a test assembly: every test starts with libtorch's generator in the same state, whatever ran before it, so that a test that draws
/// numbers gives the same result in every run. Tests run one at a time in a process; the generator is the process's.
/// </summary>
[AttributeUsage(AttributeTargets.Assembly)]
public sealed class SeedEachTestAttribute : BeforeAfterTestAttribute
{
    /// <inheritdoc/>
    public override void Before(MethodInfo methodUnderTest, IXunitTest test) => torch.manual_seed(20240229);
}
