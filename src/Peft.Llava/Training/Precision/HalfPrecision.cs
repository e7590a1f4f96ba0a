using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// What the 16-bit dtypes ask of a model before it is trained. Float16: the base in float16, everything that learns in float32. BFloat16: something that
/// computes in bfloat16; weights are never cast while they are used, as autocast would.
/// </summary>
internal static class HalfPrecision
{
    /// <summary>All that does not fit: one sentence each.</summary>
    public static IReadOnlyList<string> Problems(LlavaModel model, PeftModel? peft, TrainingOptions options)
    {
        var problems = new List<string>();
        if (options.Precision != TrainingPrecision.Float16)
        {
            if (model.Dtype == ScalarType.Float16)
                problems.Add($"the base is in Float16, whose small gradients are lost without loss scaling, and Precision is {options.Precision}; "
                    + "set Precision to TrainingPrecision.Float16, or load the base with another LlavaLoadOptions.Dtype");
            if (options.Precision == TrainingPrecision.BFloat16 && model.Dtype == ScalarType.Float32 && !HasLayersInBFloat16(model))
                problems.Add($"Precision is BFloat16 and the base is in Float32, so that nothing would be computed in bfloat16; load it with LlavaLoadOptions.Dtype = "
                    + "ScalarType.BFloat16 (adapters stay float32), prepare a quantised one with KbitCasts.NormsOnly, or set Precision to TrainingPrecision.Float32");
            return problems;
        }
        if (model.Dtype != ScalarType.Float16)
            problems.Add($"Precision is Float16 and the base is in {model.Dtype}; load it with LlavaLoadOptions.Dtype = ScalarType.Float16");
        if (options.Trainable.LanguageModel || options.Trainable.Head)
            problems.Add("the language model itself cannot learn in Float16, since its steps are lost to rounding; train adapters, or set Precision to BFloat16 or Float32");
        string[] half = [.. Learning(model, peft, options.Trainable).Where(p => p.Parameter.dtype == ScalarType.Float16).Select(p => p.Name)];
        if (half.Length > 0)
            problems.Add($"{half.Length} parameters that learn are in Float16 ('{half[0]}'{(half.Length > 1 ? ", …" : "")}), and their steps would be lost to rounding; load the base "
                + "with LlavaLoadOptions.ProjectorDtype = ScalarType.Float32, and make adapters with AdapterOptions.UpcastToFloat32, the default");
        return problems;
    }

    // A 4-bit base whose embedding was cast to float32, as PEFT prepares it, computes in its layers' own dtype.
    private static bool HasLayersInBFloat16(LlavaModel model) => model.modules().Any(m => m is FourBitLinear { ComputeDtype: ScalarType.BFloat16 });

    private static IEnumerable<(string Name, Parameter Parameter)> Learning(LlavaModel model, PeftModel? peft, TrainableParts parts)
    {
        IEnumerable<(string Name, Parameter Parameter)> adapters = peft is not null && parts.Adapter ? peft.TrainableParameters().Select(p => (p.Name, p.Parameter)) : [];
        var projector = parts.Projector ? model.Parameters(ModelPart.Projector | ModelPart.ImageNewline) : [];
        return adapters.Concat(projector).DistinctBy(p => p.Parameter.Handle);
    }
}
