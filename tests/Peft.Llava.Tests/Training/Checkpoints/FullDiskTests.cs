using System.Diagnostics;
using System.Globalization;
using Peft.Llava;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>A training on a disk of its own that is full in the middle; and one that the user interrupts.</summary>
[Collection(ProcessWideState.Name)]
public sealed class FullDiskTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("peft-full-").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void A_full_disk_loses_nothing_and_the_checkpoint_can_be_saved_when_there_is_room()
    {
        Assert.SkipUnless(PrivateMounts.ArePossible, PrivateMounts.WhatIsNeeded);
        string disk = Directory.CreateDirectory(Path.Combine(_root, "disk")).FullName, whole = Path.Combine(_root, "whole"), output = Path.Combine(_root, "output");
        using (var run = new TrainingProcess("train", whole, "7", "AdamW")) run.Succeed();
        using var small = new TrainingProcess(
            [.. PrivateMounts.Command("mount -t tmpfs -o size=3m tmpfs \"$0\"", disk)], ["full", disk, "7", output]);
        small.Succeed();
        string message = small.Lines[0];
        Assert.StartsWith("The checkpoint of step 6 could not be saved: ", message, StringComparison.Ordinal);
        Assert.Contains(" could not be written: the disk is full. An earlier file of this name is as it was. Free space there, or write to another disk. Weights and optimizer are still in "
            + "memory: call the trainer's SaveCheckpoint()", message, StringComparison.Ordinal);
        Assert.EndsWith($"The earlier checkpoint {Path.Combine(disk, "checkpoint-3")} is whole.", message, StringComparison.Ordinal);
        Assert.Equal(["left ballast checkpoint-3 training_run.json", "saved checkpoint-6", "from 6"], small.Lines.Skip(1));
        foreach (string file in new[] { "adapter_model.safetensors", "non_lora_trainables.bin" })
            Assert.True(File.ReadAllBytes(Path.Combine(whole, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(output, file))), $"{file} differs from that of an unbroken run.");
    }

    [Fact]
    public void A_log_on_a_full_disk_is_named_keeps_whole_records_and_goes_on_when_there_is_room()
    {
        Assert.SkipUnless(PrivateMounts.ArePossible, PrivateMounts.WhatIsNeeded);
        string disk = Directory.CreateDirectory(Path.Combine(_root, "disk")).FullName, output = Directory.CreateDirectory(Path.Combine(_root, "output")).FullName;
        using var small = new TrainingProcess([.. PrivateMounts.Command("mount -t tmpfs -o size=64k tmpfs \"$0\"", disk)], ["logs", disk, output]);
        small.Succeed();
        const string Full = "could not be written: the disk is full. An earlier file of this name is as it was. Free space there, or write to another disk.";
        var told = small.Lines.Select(l => l.Split(' ', 4)).ToDictionary(l => l[0]);
        Assert.Equal(["csv", "events"], told.Keys);
        Assert.All(told.Values, l => Assert.Equal("DiskFull", l[2]));
        Assert.Equal($"{Path.Combine(disk, "run.csv")} {Full}", told["csv"][3]);
        Assert.StartsWith(Path.Combine(disk, "events.out.tfevents."), told["events"][3], StringComparison.Ordinal);
        Assert.EndsWith(Full, told["events"][3], StringComparison.Ordinal);

        // On the full disk are the steps before the one that was refused, all of them whole; when there is room, that one follows.
        foreach (var (suffix, more) in new[] { ("-full", 0), ("", 1) })
        {
            string text = File.ReadAllText(Path.Combine(output, "csv" + suffix));
            string[] lines = text.Split('\n')[1..^1];
            Assert.EndsWith("\n", text, StringComparison.Ordinal);
            Assert.Equal(Enumerable.Range(1, Step("csv") - 1 + more), lines.Select(l => int.Parse(l.Split(',')[0], CultureInfo.InvariantCulture)));
            Assert.All(lines, l => Assert.Equal(CsvObserver.Header.Count(c => c == ','), l.Count(c => c == ',')));
            Assert.Equal(Enumerable.Range(1, Step("events") - 1 + more), Observing.EventFile.Read(Path.Combine(output, "events" + suffix)).Skip(1).Select(e => (int)e.Integer(2)));
        }

        int Step(string log) => int.Parse(told[log][1], CultureInfo.InvariantCulture);
    }

    [LinuxFact]
    public void A_training_that_is_interrupted_saves_a_checkpoint_and_says_where()
    {
        string folder = Path.Combine(_root, "run");
        using var run = new TrainingProcess("interrupt", folder, "5000");
        Assert.True(run.WaitFor("step 4"));
        using (var kill = Process.Start("kill", ["-INT", $"{run.Id}"])) kill.WaitForExit();
        Assert.Equal(130, run.Finish());
        Assert.Contains("interrupted", run.Lines);
        int step = int.Parse(run.Lines.Last(l => l.StartsWith("step ", StringComparison.Ordinal)).AsSpan(5), System.Globalization.CultureInfo.InvariantCulture);
        string checkpoint = Path.Combine(folder, TrainingCheckpoint.NameOf(step));
        Assert.Equal($"The training was cancelled after {step} of 5000 steps. The model has the weights of these steps; resume from {checkpoint}, or call SaveModel() for the results alone.",
            run.Lines[^1]);
        Assert.Equal(checkpoint, TrainingCheckpoint.Latest(folder));
    }

    [LinuxFact]
    public void A_second_interrupt_ends_the_process_at_once()
    {
        using var run = new TrainingProcess("interrupt", Path.Combine(_root, "run"), "5000");
        Assert.True(run.WaitFor("step 2"));
        foreach (int _ in new[] { 1, 2, 3 })
        {
            using var kill = Process.Start("kill", ["-TERM", $"{run.Id}"]);
            kill.WaitForExit();
        }
        // Ended by the signal, or by itself where the checkpoint was quicker.
        Assert.Contains(run.Finish(), new[] { 128 + 15, 130 });
    }
}
