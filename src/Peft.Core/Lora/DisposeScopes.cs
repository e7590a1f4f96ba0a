using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Dispose scopes for tensors that were handed out detached.</summary>
internal static class DisposeScopes
{
    /// <summary>Puts a detached tensor under the current dispose scope, if there is one.</summary>
    public static Tensor MoveToCurrent(this Tensor tensor)
    {
        CurrentDisposeScope?.Attach(tensor);
        return tensor;
    }
}
