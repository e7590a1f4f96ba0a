using System.Diagnostics;
using Peft.Testing;
using Xunit;

namespace Peft.Core.Tests;

public sealed class AtomicFileTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Content_appears_whole_under_the_name_and_nothing_else_stays()
    {
        string path = _folder.File("config.json");
        File.WriteAllText(path, "earlier");
        AtomicFile.Write(path, temporary =>
        {
            Assert.Equal(_folder.Path, Path.GetDirectoryName(temporary));
            Assert.Equal("earlier", File.ReadAllText(path));
            File.WriteAllText(temporary, "later");
        });
        Assert.Equal("later", File.ReadAllText(path));
        AtomicFile.WriteText(path, "é");
        Assert.Equal([0xc3, 0xa9], File.ReadAllBytes(path));
        Assert.Single(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void What_is_not_committed_leaves_the_earlier_file()
    {
        string path = _folder.File("config.json");
        File.WriteAllText(path, "earlier");
        using (var pending = AtomicFile.Begin(path)) pending.Fill(temporary => File.WriteAllText(temporary, "later"));
        Assert.Equal("the caller's own", Assert.Throws<InvalidOperationException>(() => AtomicFile.WriteStream(path, stream =>
        {
            stream.WriteByte(1);
            throw new InvalidOperationException("the caller's own");
        })).Message);
        Assert.Equal("earlier", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void A_full_disk_is_named()
    {
        Assert.SkipUnless(File.Exists("/dev/full"), "needs /dev/full, the disk that is always full");
        var e = AssertRefused(FileWriteFault.DiskFull, _ =>
        {
            using var full = new FileStream("/dev/full", FileMode.Open, FileAccess.Write);
            full.WriteByte(1);
        });
        Assert.Equal($"{e.Path} could not be written: the disk is full. An earlier file of this name is as it was. "
            + "Free space there, or write to another disk.", e.Message);
    }

    [Fact]
    public void A_folder_that_may_not_be_written_is_named()
    {
        var e = AssertRefused(FileWriteFault.NotPermitted, _ => throw new UnauthorizedAccessException());
        Assert.Equal($"{e.Path} could not be written: the folder may not be written. An earlier file of this name is as it was. "
            + "Give this user the right to write there, or choose another folder.", e.Message);
        Assert.Contains("the folder may not be written.", AssertRefused(FileWriteFault.NotPermitted, _ => throw new IOException("read-only file system", 30)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Anything_else_is_passed_on()
    {
        var e = AssertRefused(FileWriteFault.Other, _ => throw new IOException("Input/output error."));
        Assert.Equal($"{e.Path} could not be written: Input/output error. An earlier file of this name is as it was. "
            + "Remove the cause and save again.", e.Message);
    }

    [Fact]
    public void A_missing_folder_is_named()
    {
        string path = _folder.File("missing/config.json");
        var e = Assert.Throws<FileWriteException>(() => AtomicFile.WriteText(path, "x"));
        Assert.Equal(FileWriteFault.FolderMissing, e.Fault);
        Assert.Equal($"{path} could not be written: its folder does not exist. An earlier file of this name is as it was. "
            + $"Create {Path.GetDirectoryName(path)} first, or correct the path.", e.Message);
    }

    [Fact]
    public void A_folder_in_the_way_is_an_error()
    {
        string path = _folder.File("taken");
        Directory.CreateDirectory(path);
        Assert.StartsWith($"{path} could not be written: ", Assert.Throws<FileWriteException>(() => AtomicFile.WriteText(path, "x")).Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void A_sweep_removes_what_killed_processes_left_and_nothing_else()
    {
        foreach (string name in new[] { $"config.json.{Guid.NewGuid():N}.tmp", "config.json", "notes.tmp", $"{Guid.NewGuid():N}" }) File.WriteAllText(_folder.File(name), "x");
        AtomicFile.Sweep(_folder.Path);
        Assert.Equal(3, Directory.GetFiles(_folder.Path).Length);
        Assert.True(File.Exists(_folder.File("notes.tmp")));
        AtomicFile.Sweep(_folder.File("missing"));
    }

    [Fact]
    public void What_a_sweep_cannot_remove_is_named()
    {
        Assert.SkipUnless(PrivateMounts.ArePossible, PrivateMounts.WhatIsNeeded);
        string left = _folder.File($"config.json.{Guid.NewGuid():N}.tmp");
        File.WriteAllText(left, "x");
        // A file that something is mounted on cannot be deleted, not even by root.
        string probe = Path.Combine(Repository.Root, "tests", "Peft.Probe", "bin", ProbeProcess.Configuration, "net10.0", "Peft.Probe.dll");
        string[] command = [.. PrivateMounts.Command("mount --bind \"$0\" \"$0\"", left), "dotnet", probe, "sweep", _folder.Path];
        using var process = Process.Start(new ProcessStartInfo(command[0], command[1..]) { RedirectStandardOutput = true })!;
        string said = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(1, process.ExitCode);
        Assert.Equal($"{_folder.Path} could not be written: Device or resource busy : '{left}'. An earlier file of this name is as it was. Remove the cause and save again.", said);
        Assert.True(File.Exists(left));
        AtomicFile.Sweep(_folder.Path);
        Assert.False(File.Exists(left));
    }

    private FileWriteException AssertRefused(FileWriteFault fault, Action<string> write)
    {
        string path = _folder.File("config.json");
        File.WriteAllText(path, "earlier");
        var e = Assert.Throws<FileWriteException>(() => AtomicFile.Write(path, write));
        Assert.Equal(fault, e.Fault);
        Assert.NotNull(e.InnerException);
        Assert.Equal("earlier", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(_folder.Path));
        return e;
    }
}
