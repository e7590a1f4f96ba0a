using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

internal static class ScopeExtensions
{
    /// <summary>Gives a detached tensor to a scope.</summary>
    public static Tensor In(this Tensor tensor, DisposeScope scope)
    {
        scope.Attach(tensor);
        return tensor;
    }
}
