using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>What <c>.to</c> does to a packed storage: everything changes its device, only the bias its dtype.</summary>
internal static class StorageMoves
{
    public static void To(
        ScalarType? dtype, Device? device, Parameter? bias, Action<Device> moveAll, Action<Parameter> replaceBias)
    {
        if (dtype is { } wanted && bias is not null && bias.dtype != wanted)
        {
            using var noGrad = no_grad();
            var cast = new Parameter(bias.to(wanted), bias.requires_grad).DetachFromDisposeScope();
            replaceBias((Parameter)cast);
            bias.Dispose();
        }
        if (device is not null) moveAll(device);
    }
}
