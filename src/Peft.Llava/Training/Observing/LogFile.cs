using Peft.Core;

namespace Peft.Llava;

/// <summary>Appends to a log so that it holds whole records only, also where the disk fills up within one.</summary>
internal static class LogFile
{
    /// <summary>Hands a record to the operating system at once.</summary>
    /// <param name="file">The log, without a buffer, at its end.</param>
    /// <param name="record">The record's bytes.</param>
    /// <exception cref="FileWriteException">The operating system refused; the log is as it was.</exception>
    public static void Append(FileStream file, ReadOnlySpan<byte> record)
    {
        long end = file.Position;
        try
        {
            file.Write(record);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            CutBack(file, end);
            throw new FileWriteException(file.Name, e);
        }
    }

    private static void CutBack(FileStream file, long end)
    {
        try
        {
            file.SetLength(end);
            file.Position = end;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The write has failed already with the better message.
        }
    }
}
