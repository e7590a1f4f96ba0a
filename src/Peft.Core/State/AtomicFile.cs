using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

namespace Peft.Core;

/// <summary>
/// Writes files so that whoever looks sees the old file or the whole new one, however the process ends: the content goes to a temporary
/// name beside the file, is flushed to the disk, and then takes the file's name in one step.
/// </summary>
/// <remarks>A process killed while writing leaves a <c>.tmp</c> file beside the target, which <see cref="Sweep"/> removes.</remarks>
public sealed partial class AtomicFile : IDisposable
{
    private bool _committed;

    private AtomicFile(string path)
    {
        Path = System.IO.Path.GetFullPath(path);
        TempPath = $"{Path}.{Guid.NewGuid():N}.tmp";
    }

    /// <summary>The file to be written.</summary>
    public string Path { get; }

    /// <summary>Where to write its content before <see cref="Commit"/>.</summary>
    public string TempPath { get; }

    /// <summary>
    /// Starts a file in two steps, for several that should change together: write each <see cref="TempPath"/>, then commit them all.
    /// Disposing without <see cref="Commit"/> leaves the earlier file as it was.
    /// </summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <returns>The pending file; the caller disposes it.</returns>
    public static AtomicFile Begin(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return new AtomicFile(path);
    }

    /// <summary>Removes the temporary files that killed processes left in a folder.</summary>
    /// <param name="folder">The folder; it need not exist. No other process may be writing there.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Sweep(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        if (!Directory.Exists(folder)) return;
        try
        {
            foreach (string path in Directory.EnumerateFiles(folder, "*.tmp").Where(p => LeftName().IsMatch(p)).ToList()) File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(folder, e);
        }
    }

    /// <summary>Writes a file.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="write">Writes the content to the path it is given.</param>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void Write(string path, Action<string> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        using var file = Begin(path);
        file.Fill(write);
        file.Commit();
    }

    /// <summary>Writes a file through a stream.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="write">Writes the content to the stream, which it must not close.</param>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void WriteStream(string path, Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        using var file = Begin(path);
        file.FillStream(write);
        file.Commit();
    }

    /// <summary>Writes a text file in UTF-8 without a byte order mark.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="text">The content.</param>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void WriteText(string path, string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        WriteStream(path, stream => stream.Write(Encoding.UTF8.GetBytes(text)));
    }

    /// <summary>Writes the content to <see cref="TempPath"/>.</summary>
    /// <param name="write">Writes the content to the path it is given.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void Fill(Action<string> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        try
        {
            write(TempPath);
            using var stream = new FileStream(TempPath, FileMode.Open, FileAccess.ReadWrite);
            stream.Flush(flushToDisk: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(Path, e);
        }
    }

    /// <summary>Writes the content to <see cref="TempPath"/> through a stream.</summary>
    /// <param name="write">Writes the content to the stream, which it must not close.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void FillStream(Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        Fill(temporary =>
        {
            using var stream = new FileStream(temporary, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, bufferSize: 1 << 16);
            write(stream);
        });
    }

    /// <summary>Gives the content its name.</summary>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public void Commit()
    {
        try
        {
            File.Move(TempPath, Path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(Path, e);
        }
        _committed = true;
        FlushFolder(System.IO.Path.GetDirectoryName(Path)!);
    }

    /// <summary>Removes the temporary file of what was not committed.</summary>
    public void Dispose()
    {
        if (_committed) return;
        try
        {
            File.Delete(TempPath);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The write has failed already with the better message; a stray .tmp file harms nobody.
        }
    }

    // The new name is on the disk only when the folder is. Not every file system offers it, and the file itself is whole either way.
    internal static void FlushFolder(string folder)
    {
        if (OperatingSystem.IsWindows()) return;
        int descriptor = Open(folder, 0);
        if (descriptor < 0) return;
        _ = Fsync(descriptor);
        _ = Close(descriptor);
    }

    [GeneratedRegex(@"\.[0-9a-f]{32}\.tmp$")]
    private static partial Regex LeftName();

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync")]
    private static partial int Fsync(int descriptor);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
