using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>Prepares a quantised model for training.</summary>
public static class KbitPreparation
{
    /// <summary>
    /// Freezes every parameter, casts 16-bit ones to fp32 as told, and switches gradient checkpointing on. Packed weights, statistics and
    /// buffers are never touched. Call it before adapters are put on.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <param name="options">How; null for the defaults.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="KbitPreparationException">Checkpointing is asked for and the model has no such switch; nothing has changed.</exception>
    public static PreparationReport PrepareModelForKbitTraining(this nn.Module model, KbitPreparationOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        options ??= new KbitPreparationOptions();
        var switchable = model as IGradientCheckpointing;
        if (options.UseGradientCheckpointing && switchable is null)
            throw new KbitPreparationException($"{model.GetType().Name} has no gradient checkpointing to switch on (it is no {nameof(IGradientCheckpointing)}). Set UseGradientCheckpointing to false, or implement the interface.");
        int frozen = 0;
        foreach (var parameter in model.parameters())
        {
            if (!parameter.requires_grad) continue;
            parameter.requires_grad = false;
            frozen++;
        }
        var isNorm = options.IsNorm ?? IsNorm;
        var cast = ParameterCasts.Cast(model, (name, parameter) =>
            Is16Bit(parameter.dtype) && (options.Casts == KbitCasts.EverythingAsPeft || isNorm(name)) ? ScalarType.Float32 : null);
        if (switchable is not null && options.UseGradientCheckpointing) switchable.GradientCheckpointing = true;
        return new PreparationReport(cast, frozen, switchable?.GradientCheckpointing ?? false);
    }

    /// <summary>
    /// What LLaVA's <c>train.py</c> does after LoRA is on a model of 4 or 8 bits: norms to fp32, the output head and the embedding, where
    /// they are fp32, to the training dtype. The adapters get that dtype where they are made (<see cref="AdapterOptions.UpcastToFloat32"/> false).
    /// </summary>
    /// <param name="model">The model, with or without adapters.</param>
    /// <param name="dtype">The training dtype: BFloat16, or Float32 to cast norms alone.</param>
    /// <returns>What was cast.</returns>
    public static PreparationReport ApplyLlavaCasts(nn.Module model, ScalarType dtype = ScalarType.BFloat16)
    {
        ArgumentNullException.ThrowIfNull(model);
        var cast = ParameterCasts.Cast(model, (name, parameter) =>
        {
            if (IsNorm(name)) return Is16Bit(parameter.dtype) ? ScalarType.Float32 : null;
            bool end = name.Contains("lm_head", StringComparison.Ordinal) || name.Contains("embed_tokens", StringComparison.Ordinal);
            return end && !name.Contains("lora_", StringComparison.Ordinal) && parameter.dtype == ScalarType.Float32 ? dtype : null;
        });
        return new PreparationReport(cast, 0, (model as IGradientCheckpointing)?.GradientCheckpointing ?? false);
    }

    private static bool IsNorm(string name) => name.Contains("norm", StringComparison.OrdinalIgnoreCase);

    private static bool Is16Bit(ScalarType dtype) => dtype is ScalarType.Float16 or ScalarType.BFloat16;
}
