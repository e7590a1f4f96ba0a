using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>The <c>config.json</c> that LLaVA writes beside what was trained.</summary>
internal static class SavedConfig
{
    /// <summary>The model's own document with what the training adds to it.</summary>
    /// <param name="trained">The model.</param>
    /// <param name="options">The training.</param>
    /// <param name="useCache">LLaVA switches the cache off while it trains: false in a checkpoint, true at the end.</param>
    public static string Write(TrainedModel trained, TrainingOptions options, bool useCache)
    {
        var config = trained.Model.Config;
        var document = config.ToJson();
        document["_name_or_path"] = BaseName(trained, options);
        if (!config.IsHuggingFace) document["use_cache"] = useCache;       // there it belongs to text_config, which LLaVA's script knows nothing of
        if (config.Layout == CheckpointLayout.Original)
        {
            var parts = options.Trainable;
            document["freeze_mm_mlp_adapter"] = !parts.Projector;
            document["tune_mm_mlp_adapter"] = parts is { Projector: true, Adapter: false, LanguageModel: false, Head: false };
            document["mm_projector_lr"] = options.ProjectorLearningRate is double rate ? PythonJson.Float(rate) : null;
            document["tokenizer_model_max_length"] = options.MaxLength;
            document["tokenizer_padding_side"] = "right";
        }
        if (IsWhole(options))
        {
            // transformers writes these two with whole models only.
            if (config.Layout == CheckpointLayout.Original) document["architectures"] = new JsonArray("LlavaLlamaForCausalLM");
            document[document.ContainsKey("dtype") ? "dtype" : "torch_dtype"] = NameOf(trained.Model.Dtype);
        }
        return PythonJson.Write(document) + "\n";
    }

    /// <summary>Whether the language model itself was trained, so that the whole model is saved.</summary>
    public static bool IsWhole(TrainingOptions options) => options.Trainable.LanguageModel || options.Trainable.Head;

    private static string BaseName(TrainedModel trained, TrainingOptions options)
        => options.BaseModelName ?? trained.Peft?.AdapterNames.Select(a => trained.Peft.ConfigOf(a).BaseModel).FirstOrDefault(n => n is not null)
            ?? Path.GetDirectoryName(trained.Model.Config.Source) ?? "";

    /// <summary>A dtype in transformers' words.</summary>
    public static string NameOf(TorchSharp.torch.ScalarType dtype) => dtype switch
    {
        TorchSharp.torch.ScalarType.BFloat16 => "bfloat16",
        TorchSharp.torch.ScalarType.Float16 => "float16",
        _ => "float32",
    };
}
