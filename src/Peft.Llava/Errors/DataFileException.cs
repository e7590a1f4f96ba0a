using Peft.Core;

namespace Peft.Llava;

/// <summary>What is wrong with one record of a data file.</summary>
public enum RecordProblem
{
    /// <summary>The text is no JSON, or ends too early.</summary>
    NotJson,

    /// <summary>The record is something else than an object.</summary>
    NotAnObject,

    /// <summary>A field that must be there is not.</summary>
    MissingField,

    /// <summary>A field holds something of another type.</summary>
    WrongType,

    /// <summary>A field is of the right type and holds what cannot be: half of a character, a choice that is not there.</summary>
    BadValue,

    /// <summary>The conversation has no turns, or a turn or a file name no text.</summary>
    Empty,

    /// <summary>A turn is from neither <c>human</c> nor <c>gpt</c>.</summary>
    UnknownSpeaker,

    /// <summary>The same speaker speaks twice in a row.</summary>
    SpeakerOrder,

    /// <summary>The text has another number of image placeholders than the record has images.</summary>
    PlaceholderCount,

    /// <summary>An earlier record has the same id.</summary>
    DuplicateId,
}

/// <summary>One record that cannot be used.</summary>
/// <param name="Index">The record's place in the file, from 0.</param>
/// <param name="Id">Its id, or <c>#index</c> where it has none.</param>
/// <param name="Kind">The kind of fault.</param>
/// <param name="Problem">What is wrong and what to do, as half a sentence.</param>
public sealed record RecordFault(int Index, string Id, RecordProblem Kind, string Problem)
{
    /// <summary>The line of the file, from 1, where a record is a line; otherwise null.</summary>
    public int? Line { get; init; }

    /// <summary>Id, place and problem.</summary>
    public override string ToString() => $"{Id} (record {Index}{(Line is int line ? $", line {line}" : "")}): {Problem}";
}

/// <summary>Why a data file as a whole cannot be used.</summary>
public enum DataFileFault
{
    /// <summary>The file is missing or cannot be read.</summary>
    Unreadable,

    /// <summary>Its content is not of the format that was asked for.</summary>
    WrongFormat,

    /// <summary>It ends in the middle of a record.</summary>
    CutOff,

    /// <summary>Records of it are malformed; see <see cref="DataFileException.Faults"/>.</summary>
    Records,
}

/// <summary>A data file cannot be read, or records of it are malformed; all of these at once.</summary>
public sealed class DataFileException : PeftException
{
    private const int Shown = 10;

    /// <summary>Creates the exception for a file that cannot be used as a whole.</summary>
    /// <param name="path">The file.</param>
    /// <param name="fault">The kind of fault.</param>
    /// <param name="reason">What is wrong, as a sentence without its subject.</param>
    /// <param name="nextStep">What to do, or what such a file is, as a sentence.</param>
    /// <param name="innerException">The cause.</param>
    public DataFileException(string path, DataFileFault fault, string reason, string nextStep, Exception? innerException = null)
        : base($"{path}: {reason} {nextStep}", innerException)
    {
        Path = path;
        Fault = fault;
        Faults = [];
    }

    /// <summary>Creates the exception for malformed records.</summary>
    /// <param name="path">The file.</param>
    /// <param name="faults">The faults, at least one.</param>
    public DataFileException(string path, IReadOnlyList<RecordFault> faults)
        : base($"{path}: {faults.Count} record(s) cannot be used. Correct or remove them:"
            + string.Concat(faults.Take(Shown).Select(f => $"\n  {f}"))
            + (faults.Count > Shown ? $"\n  … and {faults.Count - Shown} more" : ""))
    {
        Path = path;
        Fault = DataFileFault.Records;
        Faults = faults;
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>The kind of fault.</summary>
    public DataFileFault Fault { get; }

    /// <summary>The malformed records; empty where the file as a whole is at fault.</summary>
    public IReadOnlyList<RecordFault> Faults { get; }
}
