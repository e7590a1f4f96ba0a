using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Compares each step of a training with the recorded one while it runs.</summary>
internal sealed class RunRecorder(GoldenRun run, PreparedModel prepared) : ITrainingObserver
{
    public List<StepReport> Reports { get; } = [];

    public void OnGradients(int step, IReadOnlyList<ParameterGroup> groups)
    {
        string file = $"grads_{step:0000}.safetensors";
        if (!File.Exists(run.Case.PathOf(file))) return;
        using var scope = NewDisposeScope();
        using var reader = run.Case.Tensors(file);
        var all = groups.SelectMany(g => g.Parameters).ToDictionary(p => p.Name);
        foreach (string kind in WeightKinds.All)
        {
            var names = reader.Entries.Keys.Where(n => WeightKinds.Of(n) == kind).ToList();
            if (names.Count == 0) continue;
            var spread = IsaSpread.Of(run.Case, $"{file}/{kind}");
            var expected = cat([.. names.Select(n => reader.Load(n).flatten().to(ScalarType.Float64))]);
            var got = cat([.. names.Select(n => all[n].Parameter.grad!.flatten().to(ScalarType.Float64))]);
            // The gradient as a whole is held to ten times what its norm is held to.
            double size = expected.norm().ToDouble(), off = (got - expected).norm().ToDouble();
            TensorAssert.AtMost(off, 10 * run.NormTolerance * size + 1e-12, spread.OfRms * Math.Sqrt(expected.numel()), spread,
                $"{file} {kind}: the gradient has norm {size:G4}; the norm of the difference");
        }
    }

    public TrainingVerdict OnStep(StepReport report)
    {
        Reports.Add(report);
        var expected = run.Steps[report.Step - 1];
        var micro = expected.GetProperty("micro").EnumerateArray().ToList();
        Assert.Equal(micro.Select(m => string.Join(' ', m.GetProperty("ids").EnumerateArray().Select(i => i.GetString()))),
            report.SampleIds.Select(ids => string.Join(' ', ids)));
        Assert.Equal(micro.Sum(m => m.GetProperty("supervised_tokens").GetInt64()), report.SupervisedTokens);
        Assert.Equal(micro.Sum(m => m.GetProperty("expanded_tokens").GetInt64()), report.Tokens);
        Assert.Equal(expected.GetProperty("epoch").GetDouble(), report.Epoch, 1e-12);
        Assert.Equal(expected.GetProperty("lr").EnumerateArray().Select(l => l.GetDouble()), report.Rates, (a, b) => Math.Abs(a - b) <= 1e-13 * Math.Abs(a));
        for (int i = 0; i < micro.Count; i++)
            Near(micro[i].GetProperty("loss"), report.MicroLosses[i], run.LossTolerance, 0, run.LossSpread, $"step {report.Step} micro-batch {i} loss");
        Near(expected.GetProperty("loss"), report.Loss, run.LossTolerance, 0, run.LossSpread, $"step {report.Step} loss");
        Near(expected.GetProperty("grad_norm"), report.GradNorm, 1e-12, run.NormTolerance, run.NormSpread, $"step {report.Step} gradient norm");
        double norm = expected.GetProperty("grad_norm").GetDouble();
        if (Math.Abs(norm - run.Arguments.Training.MaxGradNorm) > run.NormTolerance * norm + run.NormSpread.OfLargest) Assert.Equal(expected.GetProperty("clipped").GetBoolean(), report.Clipped);
        string file = report.Step == report.TotalSteps ? "weights_last.safetensors" : $"weights_{report.Step:0000}.safetensors";
        if (File.Exists(run.Case.PathOf(file))) CompareWeights(file);
        return TrainingVerdict.Continue;
    }

    private void CompareWeights(string file)
    {
        using var reader = run.Case.Tensors(file);
        WeightKinds.Compare(run, file, reader, GoldenRun.Parameters(prepared));
    }

    private static void Near(System.Text.Json.JsonElement expected, double got, double atol, double rtol, IsaSpread spread, string what)
    {
        if (expected.ValueKind == System.Text.Json.JsonValueKind.String)
        {
            Assert.True(double.IsNaN(got), $"{what}: expected NaN, got {got:R}.");
            return;
        }
        TensorAssert.Close(expected.GetDouble(), got, atol, rtol, what, spread);
    }
}

/// <summary>Comparison of weights by kind, as the tolerances are given.</summary>
internal static class WeightKinds
{
    public static IReadOnlyList<string> All { get; } = ["lora_A", "lora_B", "mm_projector", "multi_modal_projector", "other"];

    public static string Of(string name) => All.FirstOrDefault(k => name.Contains(k, StringComparison.Ordinal)) ?? "other";

    public static void Compare(GoldenRun run, string file, ITensorReader expected, IReadOnlyDictionary<string, Tensor> got)
    {
        if (!run.Tolerance.TryGetProperty("weights", out var weights)) return;
        if (!weights.TryGetProperty(file, out var byKind)) byKind = weights.GetProperty("weights_last.safetensors");
        double share = run.Tolerance.GetProperty("share_of_elements_allowed_outside_atol").GetDouble();
        Compare(run.Case, file, expected, got, byKind, share);
    }

    public static void Compare(
        GoldenCase golden, string file, ITensorReader expected, IReadOnlyDictionary<string, Tensor> got, System.Text.Json.JsonElement byKind, double share)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        foreach (string kind in All)
        {
            var names = expected.Entries.Keys.Where(n => Of(n) == kind).ToList();
            if (names.Count == 0) continue;
            foreach (string name in names)
            {
                Assert.True(got.TryGetValue(name, out var tensor), $"{file}: no {name}.");
                Assert.True(expected.Entries[name].Dtype == tensor.dtype, $"{file} {name}: recorded {expected.Entries[name].Dtype}, here {tensor.dtype}.");
                Assert.Equal(expected.Entries[name].Shape, tensor.shape);
            }
            if (!byKind.TryGetProperty(kind, out var limits)) continue;
            var difference = cat([.. names.Select(n => (got[n].to(ScalarType.Float64) - expected.Load(n).to(ScalarType.Float64)).flatten())]);
            double rms = difference.square().mean().sqrt().ToDouble();
            var spread = IsaSpread.Of(golden, $"{file}/{kind}");
            double atol = limits.GetProperty("atol").GetDouble();
            double outside = difference.abs().gt(atol + spread.OfLargest).to(ScalarType.Float64).mean().ToDouble();
            TensorAssert.AtMost(rms, limits.GetProperty("rms").GetDouble(), spread.OfRms, spread, $"{file} {kind}: rms");
            Assert.True(outside <= share, $"{file} {kind}: {outside:P2} of the elements are outside {atol:G4}, {spread}; {share:P2} may be.");
        }
    }
}
