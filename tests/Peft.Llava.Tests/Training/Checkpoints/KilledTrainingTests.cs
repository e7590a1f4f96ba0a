using System.Globalization;
using System.Text.RegularExpressions;
using Peft.Llava;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>
/// Trainings in processes of their own, killed at random moments. Some kills here; <c>PEFT_KILLS=20</c> does 20, <c>PEFT_KILL_SEED</c> draws other moments.
/// </summary>
[Collection(ProcessWideState.Name)]
public sealed partial class KilledTrainingTests : IDisposable
{
    private const int SaveSteps = 3, Steps = 15;

    // What the run leaves at its end, and in its last checkpoint.
    private static readonly string[] Results =
        ["adapter_model.safetensors", "adapter_config.json", "non_lora_trainables.bin", "config.json", "trainer_state.json", "checkpoint-15/optimizer.safetensors", "checkpoint-15/adapter_model.safetensors"];

    private readonly string _root = Directory.CreateTempSubdirectory("peft-killed-").FullName;

    [Theory]
    [InlineData(OptimizerKind.AdamW, 2)]
    [InlineData(OptimizerKind.AdamW8Bit, 1)]
    public void A_training_killed_at_any_moment_resumes_and_ends_with_the_bits_of_the_unbroken_one(OptimizerKind optimizer, int kills)
    {
        kills = int.Parse(Environment.GetEnvironmentVariable("PEFT_KILLS") ?? $"{kills}", CultureInfo.InvariantCulture);
        int seed = int.Parse(Environment.GetEnvironmentVariable("PEFT_KILL_SEED") ?? "23", CultureInfo.InvariantCulture);
        var random = new Random(seed);
        string whole = Path.Combine(_root, "whole");
        using (var run = Start(whole, optimizer)) run.Succeed();
        int insideSaves = 0, withoutCheckpoint = 0;
        for (int kill = 0; kill < kills; kill++)
        {
            string folder = Path.Combine(_root, $"kill{kill}"), moment;
            int saved;
            using (var run = Start(folder, optimizer))
            {
                moment = KillAt(run, random, duringSave: kill % 2 == 0);
                saved = run.Lines.Where(l => l.StartsWith("step ", StringComparison.Ordinal)).Select(l => int.Parse(l.AsSpan(5), CultureInfo.InvariantCulture))
                    .LastOrDefault(s => s % SaveSteps == 0);
            }
            bool inside = Directory.Exists(folder) && Directory.EnumerateDirectories(folder, ".checkpoint-*").Any(f => Path.GetFileName(f) != ".checkpoint-0.tmp");
            string? newest = TrainingCheckpoint.Latest(folder);
            Log($"seed {seed}, {optimizer}, kill {kill}: {moment}; saved {saved}, newest {Path.GetFileName(newest) ?? "none"}{(inside ? ", inside a save" : "")}");
            if (inside) insideSaves++;
            if (newest is null) withoutCheckpoint++;
            // The one that is printed as saved, or the next, whose line the kill cut off.
            int from = newest is null ? 0 : int.Parse(Path.GetFileName(newest).AsSpan("checkpoint-".Length), CultureInfo.InvariantCulture);
            Assert.True(from == saved || from == saved + SaveSteps, $"{moment}: checkpoint {saved} was complete, and the newest is {from}.");
            if (newest is not null) AssertLoads(newest);

            using (var again = Start(folder, optimizer))
            {
                again.Succeed();
                Assert.Equal($"from {from}", again.Lines[0]);
            }
            foreach (string file in Results) Assert.True(Content(whole, file) == Content(folder, file), $"{moment}: {file} differs from the unbroken run's.");
            Assert.Equal(Names(whole), Names(folder));
        }
        Log($"{optimizer}: {kills} kills, {insideSaves} inside a save, {withoutCheckpoint} before the first checkpoint");
        if (kills >= 10) Assert.True(insideSaves > 0, "No kill fell into a save; choose another PEFT_KILL_SEED.");
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    private static TrainingProcess Start(string folder, OptimizerKind optimizer) => new("train", folder, $"{Steps}", $"{optimizer}");

    private static string KillAt(TrainingProcess run, Random random, bool duringSave)
    {
        int save = SaveSteps * random.Next(1, Steps / SaveSteps + 1), wait = duringSave ? random.Next(0, 60) : random.Next(0, 1500);
        string line = duringSave ? $"saving {save}" : "from 0";
        Assert.True(run.WaitFor(line), $"The run never said '{line}'.");
        Thread.Sleep(wait);
        run.Kill();
        return $"{wait} ms after '{line}'";
    }

    private static void AssertLoads(string checkpoint)
    {
        using var tiny = TinyLlava.Create(seed: 5);
        using var peft = TrainedFolder.Load(tiny.Model, checkpoint);
        Assert.Equal(["default"], peft.AdapterNames);
        Assert.True(File.Exists(Path.Combine(checkpoint, "training_state.json")));
    }

    private static string Content(string folder, string file)
    {
        byte[] bytes = File.ReadAllBytes(Path.Combine(folder, file));
        // The last entry of the log says how long the run took.
        return file == "trainer_state.json" ? Timing().Replace(System.Text.Encoding.UTF8.GetString(bytes), "") : Convert.ToHexString(bytes);
    }

    private static IEnumerable<string> Names(string folder) => Directory.EnumerateFileSystemEntries(folder).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal);

    private static void Log(string line) => TestContext.Current.TestOutputHelper!.WriteLine(line);

    [GeneratedRegex("\"train_(runtime|samples_per_second|steps_per_second)\": [^,\n]*")]
    private static partial Regex Timing();
}
