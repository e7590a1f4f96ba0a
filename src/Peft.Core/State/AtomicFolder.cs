namespace Peft.Core;

/// <summary>
/// Fills a folder under another name and gives it its own in one step, so that whoever looks sees no folder or the whole one, however the
/// process ends.
/// </summary>
/// <remarks>
/// A process killed while writing leaves <c>.NAME.tmp</c>, while replacing <c>.NAME.old</c>, while removing <c>.NAME.gone</c>;
/// <see cref="Sweep"/> removes them.
/// </remarks>
public sealed class AtomicFolder : IDisposable
{
    private const string Pending = ".tmp", Earlier = ".old", Gone = ".gone";
    private bool _committed;

    private AtomicFolder(string path) => (Path, PendingPath) = (path, Beside(path, Pending));

    /// <summary>The folder to be written.</summary>
    public string Path { get; }

    /// <summary>Where its files go before <see cref="Commit"/>; it exists and is empty at first.</summary>
    public string PendingPath { get; }

    /// <summary>Starts a folder. Disposing without <see cref="Commit"/> removes what was written and leaves an earlier folder as it was.</summary>
    /// <param name="path">The folder; the folder above it must exist.</param>
    /// <returns>The pending folder; the caller disposes it.</returns>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static AtomicFolder Begin(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var folder = new AtomicFolder(System.IO.Path.GetFullPath(path));
        Try(folder.Path, () =>
        {
            if (Directory.Exists(folder.PendingPath)) Directory.Delete(folder.PendingPath, recursive: true);
            Directory.CreateDirectory(folder.PendingPath);
        });
        return folder;
    }

    /// <summary>Gives the files their folder's name. An earlier folder of that name stays until the new one stands.</summary>
    /// <exception cref="FileWriteException">The operating system refused; an earlier folder is as it was.</exception>
    public void Commit() => Try(Path, () =>
    {
        string earlier = Beside(Path, Earlier);
        bool replaces = Directory.Exists(Path);
        if (replaces)
        {
            if (Directory.Exists(earlier)) Directory.Delete(earlier, recursive: true);
            Directory.Move(Path, earlier);
        }
        try
        {
            Directory.Move(PendingPath, Path);
        }
        catch when (replaces)
        {
            Directory.Move(earlier, Path);
            throw;
        }
        _committed = true;
        AtomicFile.FlushFolder(System.IO.Path.GetDirectoryName(Path)!);
        if (replaces) Directory.Delete(earlier, recursive: true);
    });

    /// <summary>Removes a folder so that it is there whole or not at all.</summary>
    /// <param name="path">The folder; it need not exist.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Remove(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = System.IO.Path.GetFullPath(path), gone = Beside(full, Gone);
        if (!Directory.Exists(full)) return;
        Try(full, () =>
        {
            if (Directory.Exists(gone)) Directory.Delete(gone, recursive: true);
            Directory.Move(full, gone);
            Directory.Delete(gone, recursive: true);
        });
    }

    /// <summary>
    /// Removes what killed processes left beside folders of these names. A folder that was set aside for a new one that never took its place gets its
    /// name back.
    /// </summary>
    /// <param name="parent">The folder above them; it need not exist. No other process may be writing there.</param>
    /// <param name="namePrefix">What the folders' names begin with.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Sweep(string parent, string namePrefix)
    {
        ArgumentException.ThrowIfNullOrEmpty(parent);
        ArgumentException.ThrowIfNullOrEmpty(namePrefix);
        if (!Directory.Exists(parent)) return;
        Try(parent, () =>
        {
            foreach (string left in Directory.EnumerateDirectories(parent, $".{namePrefix}*").ToList())
            {
                string suffix = System.IO.Path.GetExtension(left);
                if (suffix is not (Pending or Earlier or Gone)) continue;
                string own = System.IO.Path.Combine(parent, System.IO.Path.GetFileNameWithoutExtension(left)[1..]);
                if (suffix == Earlier && !Directory.Exists(own)) Directory.Move(left, own);
                else Directory.Delete(left, recursive: true);
            }
        });
    }

    /// <summary>Removes what was not committed.</summary>
    public void Dispose()
    {
        if (_committed) return;
        try
        {
            if (Directory.Exists(PendingPath)) Directory.Delete(PendingPath, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The write has failed already with the better message; the next sweep removes it.
        }
    }

    private static string Beside(string path, string suffix)
        => System.IO.Path.Combine(System.IO.Path.GetDirectoryName(path)!, $".{System.IO.Path.GetFileName(path)}{suffix}");

    private static void Try(string path, Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(path, e);
        }
    }
}
