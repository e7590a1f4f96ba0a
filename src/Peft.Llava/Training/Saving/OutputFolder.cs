using Peft.Core;

namespace Peft.Llava;

/// <summary>The folder of the results.</summary>
internal static class OutputFolder
{
    /// <summary>Makes a folder.</summary>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Create(string path)
    {
        try
        {
            Directory.CreateDirectory(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(path, e);
        }
    }

    /// <summary>Writes and removes a small file, so that a folder that can't be written to is known before the first step and not after the last.</summary>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Probe(string path)
    {
        Create(path);
        // Named as temporary files are, so that a sweep removes what a killed process leaves.
        string probe = Path.Combine(path, $".probe.{Guid.NewGuid():N}.tmp");
        AtomicFile.WriteText(probe, "Peft.Llava can write here.\n");
        File.Delete(probe);
    }

    /// <summary>Copies files of a folder as they are, those that it has.</summary>
    public static void Copy(string from, string to, IEnumerable<string> names)
    {
        foreach (string name in names)
        {
            string source = Path.Combine(from, name);
            if (File.Exists(source)) AtomicFile.Write(Path.Combine(to, name), temporary => File.Copy(source, temporary));
        }
    }
}
