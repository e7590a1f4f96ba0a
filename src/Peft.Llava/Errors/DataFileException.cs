using Peft.Core;

namespace Peft.Llava;

/// <summary>What is wrong with one record of a data file.</summary>
/// <param name="Index">The record's place in the file, from 0.</param>
/// <param name="Id">Its id, or <c>#index</c> where it has none.</param>
/// <param name="Problem">What is wrong, as half a sentence.</param>
public sealed record RecordFault(int Index, string Id, string Problem);

/// <summary>A data file cannot be read, or records of it are malformed; all of these at once.</summary>
public sealed class DataFileException : PeftException
{
    private const int Shown = 10;

    /// <summary>Creates the exception for a file that is no list of records.</summary>
    /// <param name="path">The file.</param>
    /// <param name="reason">What is wrong, as a sentence without its subject.</param>
    /// <param name="innerException">The cause.</param>
    public DataFileException(string path, string reason, Exception? innerException = null)
        : base($"{path}: {reason} A data file is a JSON array of records with id, image (optional) and conversations.", innerException)
    {
        Path = path;
        Faults = [];
    }

    /// <summary>Creates the exception for malformed records.</summary>
    /// <param name="path">The file.</param>
    /// <param name="faults">The faults, at least one.</param>
    public DataFileException(string path, IReadOnlyList<RecordFault> faults)
        : base($"{path}: {faults.Count} record(s) cannot be used. Correct or remove them:"
            + string.Concat(faults.Take(Shown).Select(f => $"\n  {f.Id} (record {f.Index}): {f.Problem}"))
            + (faults.Count > Shown ? $"\n  … and {faults.Count - Shown} more" : ""))
    {
        Path = path;
        Faults = faults;
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>The malformed records; empty where the file as a whole is at fault.</summary>
    public IReadOnlyList<RecordFault> Faults { get; }
}
