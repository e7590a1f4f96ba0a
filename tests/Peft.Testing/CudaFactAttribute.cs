using System.Runtime.CompilerServices;
using TorchSharp;
using Xunit;

namespace Peft.Testing;

/// <summary>A test that needs a CUDA device: reported as skipped, never as passed, without one.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class CudaFactAttribute : FactAttribute
{
    /// <summary>Creates the attribute.</summary>
    public CudaFactAttribute([CallerFilePath] string? sourceFilePath = null, [CallerLineNumber] int sourceLineNumber = -1)
        : base(sourceFilePath, sourceLineNumber)
    {
        if (!torch.cuda.is_available()) Skip = "needs a CUDA device";
    }
}
