using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Whole runs of LLaVA, repeated from its own argument list and the recorded inputs, through the public API.</summary>
public sealed class RunGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> FromRecordedInputs => Goldens.Rows("training",
        c => c.Json.TryGetProperty("argv", out _) && !IsResumed(c) && UsesRecordedSamples(c));

    [Theory, MemberData(nameof(FromRecordedInputs)), Trait(Goldens.Trait, "training")]
    public void Steps_weights_and_files_equal_llavas(string folder)
    {
        string output = Directory.CreateTempSubdirectory("peft-run-").FullName;
        try
        {
            var run = new GoldenRun(folder, output);
            using var prepared = run.Prepare();
            using var data = new RecordedSamples(run.Case.AreaFolder, run.Arguments.Model.Version, run.Arguments.Data.DataPath, prepared.Model.Config, run.Arguments.Training.MaxLength!.Value);
            RunAndCompare(run, prepared, data);
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    /// <summary>The same from nothing but the argument list: tokenizer, labels, pictures and all.</summary>
    public static IEnumerable<TheoryDataRow<string>> FromArguments => Goldens.Rows("training",
        c => c.Json.TryGetProperty("argv", out _) && !IsResumed(c));

    public static IEnumerable<TheoryDataRow<string>> Resumed => Goldens.Rows("training", IsResumed);

    [Theory, MemberData(nameof(FromArguments)), Trait(Goldens.Trait, "training")]
    public void The_whole_chain_from_the_argument_list_equals_llavas(string folder)
    {
        string output = Directory.CreateTempSubdirectory("peft-run-").FullName;
        try
        {
            var run = new GoldenRun(folder, output);
            using var prepared = run.Prepare();
            RunAndCompare(run, prepared, LlavaRecipe.PrepareData(run.Arguments, prepared.Model));
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    /// <summary>LLaVA's own resume loses the projector; ours must equal the unbroken run, which another case records.</summary>
    [Theory, MemberData(nameof(Resumed)), Trait(Goldens.Trait, "training"), Trait("Fault", "files-6")]
    public void A_resumed_run_equals_llavas_unbroken_one(string folder)
    {
        var golden = new GoldenCase(folder);
        var evidence = golden.Json.GetProperty("evidence");
        int stop = evidence.GetProperty("stopped_after_step").GetInt32(), from = evidence.GetProperty("resumed_from_step").GetInt32();
        string output = Directory.CreateTempSubdirectory("peft-run-").FullName;
        try
        {
            var run = new GoldenRun(Path.Combine(golden.AreaFolder, golden.Json.GetProperty("depends_on").GetString()!), output);
            using (var first = run.Prepare())
            {
                using var stopped = first.TrainerFor(LlavaRecipe.PrepareData(run.Arguments, first.Model), run.Arguments.Training, new Watch { StopAt = stop });
                Assert.True(stopped.Train().Stopped);
            }
            string checkpoint = TrainingCheckpoint.Latest(output)!;
            Assert.Equal(TrainingCheckpoint.NameOf(from), Path.GetFileName(checkpoint));
            TrainerFilesComparison.Compare(golden.PathOf("checkpoint_resumed_from"), checkpoint);
            using var prepared = run.Prepare();
            var recorder = new RunRecorder(run, prepared);
            using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(run.Arguments, prepared.Model), run.Arguments.Training, recorder);
            trainer.ResumeFrom(checkpoint);
            trainer.Train();
            Assert.Equal(Enumerable.Range(from + 1, run.Steps.Count - from), recorder.Reports.Select(r => r.Step));
            trainer.SaveModel();
            OutputComparison.Compare(run, output);
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    private static bool IsResumed(GoldenCase golden) => golden.Json.TryGetProperty("evidence", out _);

    internal static void RunAndCompare(GoldenRun run, PreparedModel prepared, ITrainingData data)
    {
        var recorder = new RunRecorder(run, prepared);
        using var trainer = prepared.TrainerFor(data, run.Arguments.Training, recorder);
        CompareGroups(run, trainer);
        trainer.Train();
        Assert.Equal(run.Steps.Count, recorder.Reports.Count);
        CompareOptimizer(run, trainer);
        trainer.SaveModel();
        OutputComparison.Compare(run, run.Arguments.Training.OutputDirectory);
    }

    private static bool UsesRecordedSamples(GoldenCase golden)
    {
        string[] argv = [.. golden.Json.GetProperty("argv").EnumerateArray().Select(e => e.GetString()!)];
        string Value(string flag) => argv[Array.IndexOf(argv, flag) + 1];
        return Value("--mm_use_im_start_end") == "False"
            && RecordedSamples.Has(golden.AreaFolder, Value("--version"), Path.Combine(golden.AreaFolder, Value("--data_path")));
    }

    private static void CompareGroups(GoldenRun run, LLaVATrainer trainer)
    {
        var expected = run.Case.Json.GetProperty("parameter_groups").EnumerateArray().ToList();
        Assert.Equal(expected.Count, trainer.Groups.Count);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(expected[i].GetProperty("lr").GetDouble(), trainer.Groups[i].BaseRate);
            Assert.Equal(expected[i].GetProperty("weight_decay").GetDouble(), trainer.Groups[i].WeightDecay);
            Assert.Equal(expected[i].GetProperty("names").EnumerateArray().Select(n => n.GetString()), trainer.Groups[i].Parameters.Select(p => p.Name));
        }
    }

    private static void CompareOptimizer(GoldenRun run, LLaVATrainer trainer)
    {
        if (!File.Exists(run.Case.PathOf("optimizer_last.safetensors"))) return;
        using var scope = NewDisposeScope();
        using var reader = run.Case.Tensors("optimizer_last.safetensors");
        var state = trainer.Optimizer.State;
        Assert.Equal(reader.Entries.Keys.Order(StringComparer.Ordinal), state.Keys.Order(StringComparer.Ordinal));
        foreach (string kind in new[] { "exp_avg/", "exp_avg_sq/" })
        {
            var names = reader.Entries.Keys.Where(k => k.StartsWith(kind, StringComparison.Ordinal)).ToList();
            Assert.All(names, n => Assert.True(reader.Entries[n].Dtype == state[n].dtype, $"{n}: recorded {reader.Entries[n].Dtype}, here {state[n].dtype}."));
            var expected = cat([.. names.Select(n => reader.Load(n).flatten().to(ScalarType.Float64))]);
            var got = cat([.. names.Select(n => state[n].flatten().to(ScalarType.Float64))]);
            // Moments are sums of gradients: held, as a whole, to what the gradients are held to.
            double size = expected.norm().ToDouble(), off = (got - expected).norm().ToDouble();
            var spread = IsaSpread.Joined([.. names.GroupBy(WeightKinds.Of).Select(of =>
                (IsaSpread.Of(run.Case, $"optimizer_last.safetensors/{kind}{of.Key}"), of.Sum(n => state[n].numel())))]);
            TensorAssert.AtMost(off, 20 * run.NormTolerance * size, spread.OfRms * Math.Sqrt(expected.numel()), spread,
                $"{kind}: the moment has norm {size:G4}; the norm of the difference");
        }
        foreach (string name in reader.Entries.Keys.Where(k => k.StartsWith("step/", StringComparison.Ordinal)))
            TensorAssert.Equal(reader.Load(name), state[name], name);
    }
}
