using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class SeedEachTestTests
{
    [Theory, InlineData(1), InlineData(2)]
    public void A_test_starts_with_the_generator_where_every_test_starts(int row)
    {
        using var scope = NewDisposeScope();
        var drawn = randn(2 + row);
        manual_seed(20240229);
        TensorAssert.Equal(randn(2 + row), drawn, "first draw of a test");
        rand(row * 7);                              // the next row must not see that
    }
}
