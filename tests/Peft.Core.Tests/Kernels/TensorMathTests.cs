using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class TensorMathTests
{
    [Fact]
    public void Equals_the_operators_and_changes_in_place_where_it_says_so()
    {
        using var scope = NewDisposeScope();
        var (a, b) = (randn(3, 5), randn(5));
        TensorAssert.Equal(a + b, TensorMath.Add(a, b), "sum");
        TensorAssert.Equal(a * -0.37, TensorMath.Multiply(a, -0.37), "product");
        var target = a.clone();
        TensorMath.AddTo(target, b);
        TensorAssert.Equal(a + b, target, "sum in place");
        Assert.Same(target, TensorMath.Scale(target, 2.5));
        TensorAssert.Equal((a + b) * 2.5, target, "product in place");
    }
}
