using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Compares what a run wrote with what LLaVA wrote: names, dtypes, values, JSON.</summary>
internal static class OutputComparison
{
    // Measured times: not equal between two runs of LLaVA itself either.
    private static readonly string[] Measured = ["train_runtime", "train_samples_per_second", "train_steps_per_second"];

    // A model card, and a pickle of the Python trainer's own objects.
    private static readonly string[] NotOurs = ["README.md", "training_args.bin"];

    public static void Compare(GoldenRun run, string output)
    {
        var recordedFolders = run.Case.Json.GetProperty("output_files").EnumerateArray()
            .Select(f => Path.GetDirectoryName(f.GetProperty("file").GetString()!)!).Where(d => d.Length > 0).Distinct().Order(StringComparer.Ordinal);
        Assert.Equal(recordedFolders, Directory.EnumerateDirectories(output).Select(Path.GetFileName).Order(StringComparer.Ordinal));

        // A recorded failure while saving leaves nothing to compare but the state of the trainer.
        foreach (var file in run.Case.Json.GetProperty("output_files").EnumerateArray())
        {
            string name = file.GetProperty("file").GetString()!;
            string recorded = run.Case.PathOf(Path.Combine("output", name)), own = Path.Combine(output, name);
            if (NotOurs.Contains(Path.GetFileName(name))) continue;
            Assert.True(File.Exists(own), $"{name} was not written.");
            if (!File.Exists(recorded)) continue;
            switch (Path.GetExtension(name))
            {
                case ".json":
                    CompareJson(run, name, recorded, own);
                    break;
                case ".safetensors" or ".bin":
                    CompareTensors(run, name, recorded, own);
                    break;
                default:
                    Assert.True(File.ReadAllBytes(recorded).AsSpan().SequenceEqual(File.ReadAllBytes(own)), $"{name} differs.");
                    break;
            }
        }
    }

    private static void CompareTensors(GoldenRun run, string name, string recorded, string own)
    {
        using ITensorReader expected = Open(recorded), got = Open(own);
        Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), got.Entries.Keys.Order(StringComparer.Ordinal));
        // A checkpoint within the run is held to what the last weights are held to.
        using var scope = NewDisposeScope();
        WeightKinds.Compare(run, "weights_last.safetensors", expected, got.Entries.Keys.ToDictionary(k => k, got.Load));
    }

    private static ITensorReader Open(string path) => Path.GetExtension(path) == ".bin" ? PickleReader.Open(path) : SafetensorsReader.Open(path);

    private static void CompareJson(GoldenRun run, string name, string recorded, string own)
    {
        var expected = JsonNode.Parse(File.ReadAllBytes(recorded))!.AsObject();
        var got = JsonNode.Parse(File.ReadAllBytes(own))!.AsObject();
        foreach (var (field, value) in expected)
        {
            if (Measured.Contains(field)) continue;
            Assert.True(got.ContainsKey(field), $"{name}: no field {field}.");
            if (field == "log_history") CompareLog(run, value!.AsArray(), got[field]!.AsArray());
            else if (field == "target_modules") Assert.Equal(Sorted(value!), Sorted(got[field]!));
            else AssertSame($"{name}: {field}", value, Recorded(run, got[field]));
        }
    }

    private static void CompareLog(GoldenRun run, JsonArray expected, JsonArray got)
    {
        Assert.Equal(expected.Count, got.Count);
        for (int i = 0; i < expected.Count; i++)
        {
            foreach (var (field, value) in expected[i]!.AsObject())
            {
                if (Measured.Contains(field)) continue;
                double e = value!.GetValue<double>(), g = got[i]![field]!.GetValue<double>();
                bool loss = field is "loss" or "train_loss";
                TensorAssert.Close(e, g, loss ? run.LossTolerance + 1e-4 : 1e-12, 0, $"log entry {i}, {field}", loss ? run.LossSpread : default);
            }
        }
    }

    // Paths were given with the area's folder before them; the files name them as they were given.
    private static JsonNode? Recorded(GoldenRun run, JsonNode? node)
        => node is JsonValue v && v.TryGetValue<string>(out var text) && text.StartsWith(run.Case.AreaFolder, StringComparison.Ordinal)
            ? JsonValue.Create(run.Recorded(text))
            : node;

    private static IEnumerable<string> Sorted(JsonNode list) => list.AsArray().Select(n => n!.GetValue<string>()).Order(StringComparer.Ordinal);

    private static void AssertSame(string what, JsonNode? expected, JsonNode? got)
        => Assert.True(JsonNode.DeepEquals(expected, got) || Number(expected) is double e && Number(got) == e,
            $"{what}: expected {expected?.ToJsonString() ?? "null"}, got {got?.ToJsonString() ?? "null"}.");

    private static double? Number(JsonNode? node) => node is JsonValue v && v.GetValueKind() == JsonValueKind.Number ? double.Parse(v.ToJsonString(), System.Globalization.CultureInfo.InvariantCulture) : null;
}
