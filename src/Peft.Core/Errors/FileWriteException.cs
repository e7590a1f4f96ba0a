namespace Peft.Core;

/// <summary>Why a file could not be written.</summary>
public enum FileWriteFault
{
    /// <summary>The disk or the user's quota is full.</summary>
    DiskFull,

    /// <summary>The folder or file may not be written.</summary>
    NotPermitted,

    /// <summary>The folder does not exist.</summary>
    FolderMissing,

    /// <summary>Anything else the operating system reports.</summary>
    Other,
}

/// <summary>A file could not be written. An earlier file of the same name is as it was.</summary>
public sealed class FileWriteException : PeftException
{
    /// <summary>Creates the exception from what the operating system reported.</summary>
    /// <param name="path">The file that was to be written.</param>
    /// <param name="cause">What the operating system reported.</param>
    public FileWriteException(string path, Exception cause)
        : this(path, Classify(cause), cause)
    {
    }

    private FileWriteException(string path, FileWriteFault fault, Exception cause)
        : base($"{path} could not be written: {Describe(fault, cause)} An earlier file of this name is as it was. {NextStep(fault, path)}", cause)
    {
        Path = path;
        Fault = fault;
    }

    /// <summary>The file that was to be written.</summary>
    public string Path { get; }

    /// <summary>Why it could not be.</summary>
    public FileWriteFault Fault { get; }

    private static FileWriteFault Classify(Exception cause) => cause switch
    {
        UnauthorizedAccessException => FileWriteFault.NotPermitted,
        DirectoryNotFoundException => FileWriteFault.FolderMissing,
        // .NET puts errno into HResult on Unix (28 ENOSPC, 122 EDQUOT, 30 EROFS) and a Win32 code on Windows (0x70, 0x27 disk full).
        IOException { HResult: 28 or 122 or unchecked((int)0x80070070) or unchecked((int)0x80070027) } => FileWriteFault.DiskFull,
        IOException { HResult: 30 } => FileWriteFault.NotPermitted,
        _ => FileWriteFault.Other,
    };

    private static string Describe(FileWriteFault fault, Exception cause) => fault switch
    {
        FileWriteFault.DiskFull => "the disk is full.",
        FileWriteFault.NotPermitted => "the folder may not be written.",
        FileWriteFault.FolderMissing => "its folder does not exist.",
        _ => cause.Message.TrimEnd('.') + ".",
    };

    private static string NextStep(FileWriteFault fault, string path) => fault switch
    {
        FileWriteFault.DiskFull => "Free space there, or write to another disk.",
        FileWriteFault.NotPermitted => "Give this user the right to write there, or choose another folder.",
        FileWriteFault.FolderMissing => $"Create {System.IO.Path.GetDirectoryName(path)} first, or correct the path.",
        _ => "Remove the cause and save again.",
    };
}
