using Peft.Core;
using Peft.Testing;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>LLaVA's scripts with their paths, hub ids and shell variables replaced by local folders, and nothing else.</summary>
internal sealed class ScriptFolders
{
    // Widths of base-llama's language model and of the tower.
    private const int Language = 56, Vision = 48;

    private const string Zero2 = """
        {"fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1},
         "bf16": {"enabled": "auto"}, "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto", "gradient_accumulation_steps": "auto",
         "zero_optimization": {"stage": 2, "overlap_comm": true, "contiguous_gradients": true, "sub_group_size": 1e9, "reduce_bucket_size": "auto"}}
        """;

    private static readonly string Common = Path.Combine(Repository.Root, "tests", "goldens", "training", "common");
    private readonly TemporaryFolder _folder;

    public ScriptFolders(TemporaryFolder folder)
    {
        _folder = folder;
        File.WriteAllText(folder.File("zero2.json"), Zero2);
        File.WriteAllText(folder.File("zero3.json"), Zero2.Replace("\"stage\": 2", "\"stage\": 3, \"stage3_prefetch_bucket_size\": \"auto\", \"stage3_param_persistence_threshold\": \"auto\", "
            + "\"stage3_max_live_parameters\": 1e9, \"stage3_max_reuse_distance\": 1e9, \"stage3_gather_16bit_weights_on_model_save\": true", StringComparison.Ordinal));
        using var scope = NewDisposeScope();
        using var generator = new Generator(5);
        Tensor Draw(params long[] shape) => randn(shape, generator: generator) * 0.05;
        PickleWriter.Write(folder.File("linear.bin"), new Dictionary<string, Tensor> { ["model.mm_projector.weight"] = Draw(Language, Vision), ["model.mm_projector.bias"] = Draw(Language) });
        PickleWriter.Write(folder.File("mlp.bin"), new Dictionary<string, Tensor>
        {
            ["model.mm_projector.0.weight"] = Draw(Language, Vision), ["model.mm_projector.0.bias"] = Draw(Language),
            ["model.mm_projector.2.weight"] = Draw(Language, Language), ["model.mm_projector.2.bias"] = Draw(Language),
        });
    }

    public string Output => _folder.File("output");

    /// <summary>A script's argument list.</summary>
    public string[] Arguments(string script)
    {
        string[] list = LlavaScripts.All[script].Split([' ', '\n', '\r'], StringSplitOptions.RemoveEmptyEntries);
        bool plain = list[Array.IndexOf(list, "--version") + 1] == "plain", mlp = list.Contains("mlp2x_gelu");
        for (int i = 0; i + 1 < list.Length; i += 2)
        {
            list[i + 1] = list[i] switch
            {
                "--model_name_or_path" => Path.Combine(Common, list[i + 1].Contains("llava-v1.5", StringComparison.Ordinal) ? "base-llava" : "base-llama"),
                "--deepspeed" => _folder.File(Path.GetFileName(list[i + 1])),
                "--data_path" => Path.Combine(Common, "data", plain ? "plain.json" : "conv.json"),
                "--image_folder" => Path.Combine(Common, "data", "images"),
                "--vision_tower" => Path.Combine(Common, "clip-tower"),
                "--pretrain_mm_mlp_adapter" => _folder.File(mlp ? "mlp.bin" : "linear.bin"),
                "--version" when list[i + 1].StartsWith('$') => "v1",
                "--output_dir" => Output,
                _ => list[i + 1],
            };
        }
        return list;
    }
}
