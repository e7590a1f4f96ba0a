using Peft.Testing;
using Xunit;

namespace Peft.Core.Tests;

public sealed class AtomicFolderTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private string Target => _folder.File("checkpoint-3");

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_takes_its_name_when_it_is_whole_and_replaces_an_earlier_one()
    {
        for (int round = 1; round <= 2; round++)
        {
            using var folder = AtomicFolder.Begin(Target);
            File.WriteAllText(Path.Combine(folder.PendingPath, $"file{round}"), "x");
            Assert.Equal(round == 2, Directory.Exists(Target));
            folder.Commit();
            Assert.Equal([$"file{round}"], Directory.GetFiles(Target).Select(Path.GetFileName));
            Assert.Equal([Target], Directory.GetDirectories(_folder.Path));
        }
    }

    [Fact]
    public void What_is_not_committed_goes_and_the_earlier_folder_stays()
    {
        Directory.CreateDirectory(Target);
        File.WriteAllText(Path.Combine(Target, "earlier"), "x");
        using (var folder = AtomicFolder.Begin(Target)) File.WriteAllText(Path.Combine(folder.PendingPath, "later"), "x");
        Assert.Equal(["earlier"], Directory.GetFiles(Target).Select(Path.GetFileName));
        Assert.Equal([Target], Directory.GetDirectories(_folder.Path));
    }

    [Fact]
    public void A_sweep_removes_what_killed_processes_left_and_puts_back_what_was_set_aside()
    {
        foreach (string name in new[] { ".checkpoint-1.tmp", ".checkpoint-2.gone", ".checkpoint-3.old", ".checkpoint-4.old", "checkpoint-4", ".other.tmp", ".checkpoint-notes" })
            File.WriteAllText(Path.Combine(Directory.CreateDirectory(_folder.File(name)).FullName, "from"), name);
        AtomicFolder.Sweep(_folder.Path, "checkpoint-");
        Assert.Equal([".checkpoint-notes", ".other.tmp", "checkpoint-3", "checkpoint-4"],
            Directory.GetDirectories(_folder.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.Equal(".checkpoint-3.old", File.ReadAllText(Path.Combine(Target, "from")));
        Assert.Equal("checkpoint-4", File.ReadAllText(_folder.File("checkpoint-4/from")));
        AtomicFolder.Sweep(_folder.File("missing"), "checkpoint-");
    }

    [Fact]
    public void A_folder_is_removed_whole()
    {
        File.WriteAllText(Path.Combine(Directory.CreateDirectory(Target).FullName, "file"), "x");
        Directory.CreateDirectory(_folder.File(".checkpoint-3.gone"));
        AtomicFolder.Remove(Target);
        AtomicFolder.Remove(Target);
        Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void What_the_system_refuses_is_an_error_and_the_earlier_folder_stays()
    {
        File.WriteAllText(_folder.File(".checkpoint-3.tmp"), "in the way");
        var e = Assert.Throws<FileWriteException>(() => AtomicFolder.Begin(Target));
        Assert.Equal(Target, e.Path);
        Assert.StartsWith($"{Target} could not be written: ", e.Message, StringComparison.Ordinal);
        File.Delete(_folder.File(".checkpoint-3.tmp"));

        File.WriteAllText(Path.Combine(Directory.CreateDirectory(Target).FullName, "earlier"), "x");
        using var folder = AtomicFolder.Begin(Target);
        Directory.Delete(folder.PendingPath);
        var gone = Assert.Throws<FileWriteException>(folder.Commit);
        Assert.Equal(FileWriteFault.FolderMissing, gone.Fault);
        Assert.StartsWith($"{Target} could not be written: its folder does not exist.", gone.Message, StringComparison.Ordinal);
        Assert.Equal(["earlier"], Directory.GetFiles(Target).Select(Path.GetFileName));
    }
}
