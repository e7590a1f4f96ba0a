using System.Text.Json;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>One recorded run of LLaVA: its arguments with paths that lead somewhere, its inputs and what it wrote.</summary>
internal sealed class GoldenRun
{
    private static readonly string[] PathFlags = ["--model_name_or_path", "--data_path", "--image_folder", "--vision_tower", "--pretrain_mm_mlp_adapter"];

    public GoldenRun(string folder, string outputFolder)
    {
        Case = new GoldenCase(folder);
        string[] argv = [.. Case.Json.GetProperty("argv").EnumerateArray().Select(e => e.GetString()!)];
        for (int i = 0; i + 1 < argv.Length; i++)
        {
            if (PathFlags.Contains(argv[i])) argv[i + 1] = Path.Combine(Case.AreaFolder, argv[i + 1]);
            else if (argv[i] == "--output_dir") argv[i + 1] = outputFolder;
        }
        var parsed = LlavaCommandLine.Parse(argv);
        bool half = Settings.TryGetProperty("tower_fp16", out var tower) && tower.GetBoolean();
        Arguments = parsed with
        {
            Model = parsed.Model with { HalfPrecisionTower = half },
            Training = parsed.Training with { Weighting = StepWeighting.LlavaExact },
        };
        using var steps = JsonDocument.Parse(File.ReadAllBytes(Case.PathOf(Case.Json.GetProperty("steps_file").GetString()!)));
        Steps = [.. steps.RootElement.Clone().EnumerateArray()];
        var recommended = Case.Json.GetProperty("tolerance").GetProperty("recommended");
        Tolerance = recommended;
    }

    public GoldenCase Case { get; }

    public LlavaArguments Arguments { get; }

    public IReadOnlyList<JsonElement> Steps { get; }

    public JsonElement Tolerance { get; }

    public JsonElement Settings => Case.Json.GetProperty("settings");

    public double LossTolerance => Tolerance.GetProperty("loss").GetProperty("atol").GetDouble();

    public IsaSpread LossSpread => IsaSpread.Of(Case, "loss");

    public double NormTolerance => Tolerance.GetProperty("grad_norm").GetProperty("rtol").GetDouble();

    public IsaSpread NormSpread => IsaSpread.Of(Case, "grad_norm");

    /// <summary>A path of the case's own words, with the recorded prefix put back: what <c>config.json</c> names.</summary>
    public string Recorded(string path) => Path.GetRelativePath(Case.AreaFolder, path).Replace('\\', '/');

    public PreparedModel Prepare()
    {
        var prepared = LlavaRecipe.PrepareModel(Arguments);
        try
        {
            LoadInitial(prepared);
            return prepared;
        }
        catch
        {
            prepared.Dispose();
            throw;
        }
    }

    /// <summary>Where the recorded run began: LLaVA draws the adapter and a new projector from a generator that nothing seeds.</summary>
    private void LoadInitial(PreparedModel prepared)
    {
        string? file = File.Exists(Case.PathOf("initial.safetensors")) ? Case.PathOf("initial.safetensors") : null;
        if (file is null && Case.Json.TryGetProperty("initial", out var other))
        {
            string named = Path.Combine(Case.AreaFolder, other.GetString()!);
            if (File.Exists(named)) file = named;
        }
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        if (file is not null)
        {
            var parameters = Parameters(prepared);
            using var reader = SafetensorsReader.Open(file);
            foreach (string name in reader.Entries.Keys)
            {
                Assert.True(parameters.TryGetValue(name, out var parameter), $"The model has no parameter {name}.");
                var value = reader.Load(name);
                Assert.Equal(value.shape, parameter.shape);
                Assert.True(value.dtype == parameter.dtype, $"{name}: recorded {value.dtype}, here {parameter.dtype}.");
                parameter.copy_(value);
            }
        }
        if (!File.Exists(Case.PathOf("new_rows.safetensors"))) return;
        using var rows = Case.Tensors("new_rows.safetensors");
        foreach (var (name, target) in new[] { ("embed_tokens", "model.embed_tokens.weight"), ("lm_head", "lm_head.weight") })
        {
            var value = rows.Load(name);
            var table = prepared.Model.named_parameters().First(p => p.name == target).parameter;
            table.narrow(0, table.shape[0] - value.shape[0], value.shape[0]).copy_(value);
        }
    }

    public static Dictionary<string, Tensor> Parameters(PreparedModel prepared)
        => prepared.Peft is null
            ? prepared.Model.named_parameters().ToDictionary(p => p.name, p => (Tensor)p.parameter)
            : prepared.Peft.NamedParameters().ToDictionary(p => p.Name, p => (Tensor)p.Parameter);
}
