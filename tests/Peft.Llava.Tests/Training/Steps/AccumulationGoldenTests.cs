using System.Text.Json;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>The same micro-batches weighted both ways: by micro-batch, as LLaVA, and by supervised token.</summary>
public sealed class AccumulationGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("training",
        c => c.Json.TryGetProperty("rows", out var rows) && rows[0].TryGetProperty("base_mean_of_means", out _));

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "training")]
    public void Losses_and_gradients_equal_the_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var expected = golden.Tensors("expected.safetensors");
        string area = golden.AreaFolder, common = Path.Combine(area, "common");
        using var model = LlavaModel.Load(Path.Combine(common, "base-llava"), new LlavaLoadOptions { VisionTower = Path.Combine(common, "clip-tower") });
        using var samples = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(area, "samples", "case.json")));
        int length = samples.RootElement.GetProperty("settings").GetProperty("model_max_length").GetInt32();
        using var data = new RecordedSamples(area, "v1", Path.Combine(common, "data", "conv.json"), model.Config, length, new LlavaBatchOptions { MaxLength = length });
        var place = Enumerable.Range(0, data.Count).ToDictionary(data.IdOf);
        model.SetTrainable(ModelPart.Projector, true);
        var parameters = model.Parameters(ModelPart.Projector).Select(p => new NamedParameter(p.Name, p.Parameter)).ToList();
        double atol = golden.Json.GetProperty("tolerance").GetProperty("atol").GetDouble(), rtol = golden.Json.GetProperty("tolerance").GetProperty("rtol").GetDouble();

        foreach (var row in golden.Json.GetProperty("rows").EnumerateArray())
        {
            var batches = row.GetProperty("ids").EnumerateArray().Select(ids => data.Batch([.. ids.EnumerateArray().Select(id => place[id.GetString()!])])).ToList();
            Assert.Equal(row.GetProperty("supervised_tokens").EnumerateArray().Select(t => t.GetInt64()), batches.Select(b => b.SupervisedTokens));
            foreach (var (mode, weighting) in new[] { ("mean_of_means", StepWeighting.LlavaExact), ("token_weighted", StepWeighting.SupervisedTokens) })
            {
                using var optimizer = new Sgd([new ParameterGroup("projector", parameters, 0, 0)]);
                var step = new TrainStep(model, optimizer, weighting, batches.Count, 0);
                int number = row.GetProperty("step").GetInt32();
                var result = step.Run(number, batches, () =>
                {
                    using var scope = NewDisposeScope();
                    foreach (var (name, parameter) in parameters)
                    {
                        // A text-only step gives the projector no gradient at all where LLaVA's detour gives zeros.
                        var gradient = parameter.grad ?? zeros_like(parameter);
                        TensorAssert.Close(expected.Load($"{number}/{mode}/{name.Replace("model.mm_projector.", "", StringComparison.Ordinal)}"), gradient, atol, rtol, $"step {number} {mode} {name}");
                    }
                });
                Near(row.GetProperty($"base_{mode}").GetDouble(), result.Loss, atol, rtol, $"step {number} {mode} loss");
                Near(row.GetProperty($"base_{mode}_grad_norm").GetDouble(), result.Norm.Norm, atol, rtol, $"step {number} {mode} norm");
            }
            batches.ForEach(b => b.Dispose());
        }
    }

    private static void Near(double expected, double got, double atol, double rtol, string what)
        => Assert.True(Math.Abs(expected - got) <= atol + rtol * Math.Abs(expected), $"{what}: expected {expected:R}, got {got:R}.");
}
