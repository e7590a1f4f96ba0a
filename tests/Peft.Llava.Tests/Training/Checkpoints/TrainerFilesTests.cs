using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>The files of transformers' Trainer in a checkpoint, optimizer by optimizer; LLaVA's recorded ones are compared in <see cref="RunGoldenTests"/>.</summary>
public sealed class TrainerFilesTests
{
    private static PickleDictionary Checkpoint(TinyRun run, TrainingOptions options, out string folder)
    {
        using var trainer = new LLaVATrainer(run.Peft, run, options with { MaxSteps = 2, SaveStrategy = SaveStrategy.Steps, SaveSteps = 2 });
        trainer.Train();
        folder = Path.Combine(run.Output, "checkpoint-2");
        return (PickleDictionary)PickleFile.ReadObject(Path.Combine(folder, "optimizer.pt"))!;
    }

    [Theory, Trait("Fault", "files-6")]
    [InlineData(OptimizerKind.AdamW8Bit, "optim-adamw8bit")]
    [InlineData(OptimizerKind.Lion8Bit, "optim-lion8bit")]
    public void Eight_bit_states_have_bitsandbytes_names(OptimizerKind kind, string recorded)
    {
        using var scope = NewDisposeScope();
        using var run = new TinyRun();
        var written = Checkpoint(run, run.Options with { Optimizer = kind }, out _);
        var measured = new GoldenCase(Path.Combine(Goldens.Roots[0], "bitsandbytes", recorded)).Json.GetProperty("measured");
        var small = measured.GetProperty("state_dict_layout").GetProperty("0");
        var first = (PickleDictionary)((PickleDictionary)written["state"]!)[0L]!;
        Assert.Equal(small.EnumerateObject().Select(p => p.Name), first.Keys);
        Assert.Equal(2L, first["step"]);
        var nested = (PickleDictionary)first["__bnb_optimizer_quant_state__"]!;
        Assert.Equal(small.GetProperty("__bnb_optimizer_quant_state__").EnumerateObject().Select(p => p.Name), nested.Keys);
        Assert.Equal(ScalarType.Float32, ((Tensor)nested["state1"]!).dtype);
        var group = (PickleDictionary)((IReadOnlyList<object?>)written["param_groups"]!)[0]!;
        Assert.Equal(measured.GetProperty("param_groups")[0].EnumerateObject().Select(p => p.Name).Append("initial_lr").Order(StringComparer.Ordinal),
            group.Keys.Cast<string>().Order(StringComparer.Ordinal));
    }

    [Fact, Trait("Fault", "files-6")]
    public void Transformers_former_AdamW_counts_steps_in_numbers()
    {
        using var scope = NewDisposeScope();
        using var run = new TinyRun();
        var written = Checkpoint(run, run.Options with { Optimizer = OptimizerKind.AdamWTransformers }, out _);
        var first = (PickleDictionary)((PickleDictionary)written["state"]!)[0L]!;
        Assert.Equal(["step", "exp_avg", "exp_avg_sq"], first.Keys);
        Assert.Equal(2L, first["step"]);
        Assert.Equal(true, ((PickleDictionary)((IReadOnlyList<object?>)written["param_groups"]!)[0]!)["correct_bias"]);
    }

    [Fact, Trait("Fault", "files-6")]
    public void A_constant_schedule_is_a_plain_function_and_an_optimizer_without_a_counterpart_has_no_files()
    {
        using var scope = NewDisposeScope();
        using var run = new TinyRun();
        Checkpoint(run, run.Options with { Schedule = ScheduleKind.Constant, WarmupSteps = 0 }, out string folder);
        var schedule = (PickleDictionary)PickleFile.ReadObject(Path.Combine(folder, "scheduler.pt"))!;
        Assert.Equal(2L, schedule["last_epoch"]);
        Assert.All((IReadOnlyList<object?>)schedule["lr_lambdas"]!, Assert.Null);

        using var other = new TinyRun();
        using var trainer = new LLaVATrainer(other.Peft, other, other.Options with { MaxSteps = 2, SaveStrategy = SaveStrategy.Steps, SaveSteps = 2, Optimizer = OptimizerKind.Adafactor });
        trainer.Train();
        folder = Path.Combine(other.Output, "checkpoint-2");
        Assert.Equal([false, false, true], ((string[])["optimizer.pt", "scheduler.pt", "rng_state.pth"]).Select(f => File.Exists(Path.Combine(folder, f))));
    }

    /// <summary>CPython's <c>random.seed</c> for a seed of one and of two digits: the first words and a check over all of them.</summary>
    [Theory, Trait("Fault", "files-6")]
    [InlineData(42, new uint[] { 3564348608u, 1266698288u, 3831079317u, 1891969784u })]
    [InlineData(12345678901, new uint[] { 1293140699u, 2833017430u, 3263798260u, 2969384079u })]
    public void Pythons_state_is_that_of_its_seed(long seed, uint[] expected)
    {
        using var scope = NewDisposeScope();
        using var run = new TinyRun();
        Checkpoint(run, run.Options with { Seed = seed }, out string folder);
        var python = (PickleTuple)((PickleDictionary)PickleFile.ReadObject(Path.Combine(folder, "rng_state.pth"))!)["python"]!;
        var words = ((PickleTuple)python[1]!).Select(w => (long)w!).ToList();
        Assert.Equal((3L, 625, 624L, (object?)null), (python[0], words.Count, words[^1], python[2]));
        Assert.Equal(expected, (uint[])[(uint)words[1], (uint)words[2], (uint)words[623], (uint)words.Aggregate(0L, (sum, w) => (sum * 31 + w) % 4294967291)]);
    }
}
