using Peft.Quantization;
using TorchSharp;

namespace Peft.Llava;

/// <summary>The <c>--bits 4</c> and <c>--bits 8</c> of LLaVA's <c>train.py</c>.</summary>
/// <remarks>
/// LLaVA's own skip list, <c>["mm_projector"]</c>, has the head quantised too, by a slip of how the list replaces the default; here projector,
/// head and tower stay as they are.
/// </remarks>
internal static class KbitRecipe
{
    /// <summary>How the arguments have the base quantised; null for <c>--bits 16</c>.</summary>
    public static QuantizationConfig? ConfigOf(LlavaArguments arguments) => arguments.Model.Bits switch
    {
        4 => new QuantizationConfig
        {
            Bits = 4,
            QuantType = new QuantType(arguments.Model.QuantType),
            DoubleQuantization = arguments.Model.DoubleQuantization,
            ComputeDtype = DtypeOf(arguments.Training.Precision),
        },
        8 => QuantizationConfig.Int8(),
        _ => null,
    };

    /// <summary>The base's dtype.</summary>
    public static torch.ScalarType DtypeOf(TrainingPrecision precision) => precision switch
    {
        TrainingPrecision.BFloat16 => torch.ScalarType.BFloat16,
        TrainingPrecision.Float16 => torch.ScalarType.Float16,
        _ => torch.ScalarType.Float32,
    };

    /// <summary>Prepares a quantised model for training; leaves another alone.</summary>
    public static void Prepare(LlavaModel model, LlavaArguments arguments)
    {
        if (arguments.Model.Bits == 16) return;
        model.PrepareModelForKbitTraining(new KbitPreparationOptions { UseGradientCheckpointing = arguments.Training.GradientCheckpointing });
    }
}
