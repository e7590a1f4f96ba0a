using TorchSharp;

namespace Peft.Llava;

/// <summary>The switch of float32 products on NVIDIA GPUs: set for a training, and put back as it was found.</summary>
internal sealed class Tf32 : IDisposable
{
    private readonly (bool MatMul, bool Cudnn)? _found;

    private Tf32(bool? wanted)
    {
        if (wanted is not bool on) return;
        _found = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32);
        Set(on, on);
    }

    public static IDisposable Use(TrainingOptions options) => new Tf32(options.Tf32);

    public void Dispose()
    {
        if (_found is var (matmul, cudnn)) Set(matmul, cudnn);
    }

    private static void Set(bool matmul, bool cudnn)
    {
        torch.backends.cuda.matmul.allow_tf32 = matmul;
        torch.backends.cudnn.allow_tf32 = cudnn;
    }
}
