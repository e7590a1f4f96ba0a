using Peft.Quantization;
using TorchSharp;

namespace Peft.Llava;

/// <summary>How <see cref="LlavaModel.Load"/> reads a checkpoint.</summary>
public sealed record LlavaLoadOptions
{
    /// <summary>
    /// The dtype to compute in; all floating-point tensors are brought to it, one at a time. Null keeps the stored dtypes, and the weights
    /// memory-mapped: nothing is read before its first use.
    /// </summary>
    public torch.ScalarType? Dtype { get; init; }

    /// <summary>
    /// The vision tower's folder (original layout), where <c>mm_vision_tower</c> does not lead to it: a full path, or relative to the working folder.
    /// </summary>
    public string? VisionTower { get; init; }

    /// <summary>The configuration to use instead of the folder's own, for changed values.</summary>
    public LlavaConfig? Config { get; init; }

    /// <summary>
    /// The dtype of the projector and <c>image_newline</c> where it is to differ from <see cref="Dtype"/>: float32, to train them on a float16 base.
    /// </summary>
    public torch.ScalarType? ProjectorDtype { get; init; }

    /// <summary>Where the model goes; null for the CPU.</summary>
    public torch.Device? Device { get; init; }

    /// <summary>
    /// How linear layers are quantised while they are loaded, one tensor at a time; null for not at all. A checkpoint that bitsandbytes has
    /// quantised is read as it is, without this.
    /// </summary>
    public QuantizationConfig? Quantization { get; init; }

    /// <summary>How linear layers are stored; null for dense. Asked for every linear layer, in place of <see cref="Quantization"/>.</summary>
    public LinearStorage? Storage { get; init; }

    /// <summary>Throws if there are values that nothing can be loaded with.</summary>
    /// <exception cref="InvalidConfigurationException">All of them.</exception>
    internal void ThrowIfInvalid()
    {
        var problems = new List<string>();
        foreach (var (name, dtype) in new[] { (nameof(Dtype), Dtype), (nameof(ProjectorDtype), ProjectorDtype) })
        {
            if (dtype is { } wanted && wanted is not (torch.ScalarType.Float16 or torch.ScalarType.BFloat16 or torch.ScalarType.Float32 or torch.ScalarType.Float64))
                problems.Add($"{name} is {wanted}, in which no model computes; choose Float32, BFloat16 or Float16, and Quantization for weights in 4 or 8 bits");
        }
        if (Device?.type == DeviceType.CUDA && !torch.cuda.is_available())
            problems.Add("Device is CUDA, and this process has none; reference TorchSharp-cuda-windows or TorchSharp-cuda-linux in place of the CPU's libtorch on a machine with "
                + "an NVIDIA driver (PeftEnvironment.Diagnose() tells what was found), or leave Device null for the CPU");
        if (problems.Count > 0) throw new InvalidConfigurationException(nameof(LlavaLoadOptions), problems, "Correct the options.");
    }
}
