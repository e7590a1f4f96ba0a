using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What float16 asks of a model before it is trained: the base in float16, everything that learns in float32.</summary>
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

    private static IEnumerable<(string Name, Parameter Parameter)> Learning(LlavaModel model, PeftModel? peft, TrainableParts parts)
    {
        IEnumerable<(string Name, Parameter Parameter)> adapters = peft is not null && parts.Adapter ? peft.TrainableParameters().Select(p => (p.Name, p.Parameter)) : [];
        var projector = parts.Projector ? model.Parameters(ModelPart.Projector | ModelPart.ImageNewline) : [];
        return adapters.Concat(projector).DistinctBy(p => p.Parameter.Handle);
    }
}
