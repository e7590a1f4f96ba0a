using TorchSharp;

namespace Peft.Llava;

/// <summary>Settings that depend on where the model is, which the trainer never moves.</summary>
internal static class DeviceSettings
{
    /// <summary>All that does not fit: one sentence each.</summary>
    public static IReadOnlyList<string> Problems(LlavaModel model, TrainingOptions options)
    {
        var problems = new List<string>();
        if (options.Tf32 == true && model.Device.type != DeviceType.CUDA)
            problems.Add($"Tf32 is a mode of NVIDIA GPUs, and the model is on {model.Device.type}; leave it null");
        if (options.UseCpu && model.Device.type != DeviceType.CPU)
            problems.Add($"UseCpu is true, and the model is on {model.Device.type}; load it with LlavaLoadOptions.Device = CPU");
        return problems;
    }
}
