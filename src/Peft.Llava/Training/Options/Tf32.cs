using TorchSharp;

namespace Peft.Llava;

/// <summary>The switch of float32 products on NVIDIA GPUs.</summary>
internal static class Tf32
{
    public static void Apply(TrainingOptions options)
    {
        if (options.Tf32 is not bool on || !torch.cuda.is_available()) return;
        torch.backends.cuda.matmul.allow_tf32 = on;
        torch.backends.cudnn.allow_tf32 = on;
    }
}
