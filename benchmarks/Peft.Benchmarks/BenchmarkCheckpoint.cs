using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Llava;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>Makes the checkpoint folder of a size once: bf16, sharded safetensors, llava-hf names, random weights.</summary>
internal static class BenchmarkCheckpoint
{
    /// <summary>The folder of a size, made if it is not there.</summary>
    public static string Ensure(string root, string name, BenchmarkSize size)
    {
        string folder = Path.Combine(root, name);
        if (File.Exists(Path.Combine(folder, "config.json"))) return folder;
        string temporary = folder + ".tmp";
        if (Directory.Exists(temporary)) Directory.Delete(temporary, true);
        Directory.CreateDirectory(temporary);
        WriteTensors(temporary, size);
        File.WriteAllText(Path.Combine(temporary, "config.json"), Config(size).ToJsonString());
        Directory.Move(temporary, folder);
        return folder;
    }

    private static JsonObject Config(BenchmarkSize size) => new()
    {
        ["architectures"] = new JsonArray("LlavaForConditionalGeneration"),
        ["model_type"] = "llava",
        ["image_token_index"] = size.Text.Vocab - 1,
        ["projector_hidden_act"] = "gelu",
        ["vision_feature_layer"] = -2,
        ["vision_feature_select_strategy"] = "default",
        ["tie_word_embeddings"] = false,
        ["torch_dtype"] = "bfloat16",
        ["text_config"] = new JsonObject
        {
            ["model_type"] = "llama",
            ["hidden_size"] = size.Text.Hidden,
            ["intermediate_size"] = size.Text.Intermediate,
            ["num_hidden_layers"] = size.Text.Layers,
            ["num_attention_heads"] = size.Text.Heads,
            ["num_key_value_heads"] = size.Text.Heads,
            ["max_position_embeddings"] = 4096,
            ["rms_norm_eps"] = 1e-5,
            ["vocab_size"] = size.Text.Vocab,
        },
        ["vision_config"] = new JsonObject
        {
            ["model_type"] = "clip_vision_model",
            ["hidden_size"] = size.Vision.Hidden,
            ["intermediate_size"] = size.Vision.Intermediate,
            ["num_hidden_layers"] = size.Vision.Layers,
            ["num_attention_heads"] = size.Vision.Heads,
            ["image_size"] = size.Vision.Image,
            ["patch_size"] = size.Vision.Patch,
            ["hidden_act"] = "quick_gelu",
        },
    };

    private static void WriteTensors(string folder, BenchmarkSize size)
    {
        using var generator = new Generator(7);
        var config = LlavaConfig.Parse(Config(size));
        var shards = new List<List<(string Name, Tensor Tensor)>> { new() };
        long bytes = 0, total = 0;
        foreach (var spec in ModelManifest.Of(config))
        {
            using var scope = NewDisposeScope();
            bool norm = spec.Shape.Count == 1;
            var values = norm && spec.Name.EndsWith("weight", StringComparison.Ordinal)
                ? ones([.. spec.Shape]) : randn([.. spec.Shape], ScalarType.Float32, generator: generator).mul_(0.02);
            var tensor = values.to(ScalarType.BFloat16).DetachFromDisposeScope();
            long length = tensor.numel() * 2;
            if (bytes > 0 && bytes + length > size.ShardBytes)
            {
                shards.Add([]);
                bytes = 0;
            }
            shards[^1].Add((HuggingFaceKeys.ToExternal(spec.Name, HuggingFaceKeyStyle.Classic), tensor));
            bytes += length;
            total += length;
        }
        if (shards.Count == 1)
        {
            SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), shards[0].ToDictionary(t => t.Name, t => t.Tensor), SafetensorsWriter.PyTorchMetadata);
            foreach (var (_, tensor) in shards[0]) tensor.Dispose();
            return;
        }
        var map = new JsonObject();
        for (int i = 0; i < shards.Count; i++)
        {
            string file = $"model-{i + 1:D5}-of-{shards.Count:D5}.safetensors";
            SafetensorsWriter.Write(Path.Combine(folder, file), shards[i].ToDictionary(t => t.Name, t => t.Tensor), SafetensorsWriter.PyTorchMetadata);
            foreach (var (name, tensor) in shards[i])
            {
                map[name] = file;
                tensor.Dispose();
            }
        }
        File.WriteAllText(Path.Combine(folder, "model.safetensors.index.json"),
            new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = total }, ["weight_map"] = map }.ToJsonString());
    }
}
