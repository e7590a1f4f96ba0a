using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>A run of LLaVA's flags on the recorded tiny bases, and changed copies of these.</summary>
internal sealed class RecipeFolder : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public static string Common { get; } = Path.Combine(Goldens.Roots[0], "training", "common");

    public static string Llama { get; } = Path.Combine(Common, "base-llama");

    public static string Llava { get; } = Path.Combine(Common, "base-llava");

    public static string Tower { get; } = Path.Combine(Common, "clip-tower");

    public static string Stage1 { get; } = Path.Combine(Goldens.Roots[0], "training", "pretrain", "output", "mm_projector.bin");

    public string Output => _folder.File("out");

    public void Dispose() => _folder.Dispose();

    public string File(string name) => _folder.File(name);

    /// <summary>The arguments of a short run; further flags follow.</summary>
    public LlavaArguments Arguments(string modelPath, string flags, string? output = null) => LlavaCommandLine.Parse(
    [
        "--model_name_or_path", modelPath, "--version", "v1", "--data_path", Path.Combine(Common, "data", "conv.json"), "--image_folder", Path.Combine(Common, "data", "images"),
        "--output_dir", output ?? Output, "--max_steps", "2", "--per_device_train_batch_size", "2", "--learning_rate", "3e-3", "--save_strategy", "no", "--model_max_length", "132",
        "--mm_use_im_patch_token", "False", "--lora_r", "3", "--lora_alpha", "7", "--use_cpu", "True", .. flags.Split(' ', StringSplitOptions.RemoveEmptyEntries),
    ]);

    /// <summary>Trains and saves; gives the logits of a sample with a picture by the model in memory.</summary>
    public Tensor Train(LlavaArguments arguments)
    {
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        using var trainer = prepared.TrainerFor(data, arguments.Training);
        trainer.Train();
        trainer.SaveModel();
        return Logits(prepared.Model, data);
    }

    public static Tensor Logits(LlavaModel model, ITrainingData data)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        using var batch = data.Batch([0, 1, 2]);
        return model.Forward(batch).Logits!.to(ScalarType.Float32).clone().DetachFromDisposeScope();
    }

    /// <summary>A copy of a base with another configuration, and perhaps other tensors.</summary>
    public string Copy(string source, string name, Action<JsonObject>? configure = null, Action<Dictionary<string, Tensor>>? change = null)
    {
        string folder = Directory.CreateDirectory(_folder.File(name)).FullName;
        foreach (string file in Directory.EnumerateFiles(source)) System.IO.File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        var config = JsonNode.Parse(System.IO.File.ReadAllText(Path.Combine(folder, "config.json")))!.AsObject();
        configure?.Invoke(config);
        System.IO.File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        if (change is null) return folder;
        using var scope = NewDisposeScope();
        var tensors = new Dictionary<string, Tensor>();
        using (var reader = TensorFiles.Open(source))
            foreach (string key in reader.Entries.Keys) tensors[key] = reader.Load(key);
        change(tensors);
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors);
        return folder;
    }

    public static Tensor Parameter(LlavaModel model, string name) => model.named_parameters().Single(p => p.name == name).parameter;
}
