namespace Peft.Core;

/// <summary>A file was replaced or changed after it was opened, so that its header no longer tells where its tensors are.</summary>
public sealed class TensorFileChangedException : TensorFileException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file.</param>
    /// <param name="lengthThen">Its length when it was opened.</param>
    /// <param name="lengthNow">Its length now; -1 if it is gone.</param>
    public TensorFileChangedException(string sourceFile, long lengthThen, long lengthNow)
        : base(sourceFile, null, $"{sourceFile} changed after it was opened: it had {lengthThen} bytes, "
            + (lengthNow < 0 ? "and is gone now" : lengthNow == lengthThen ? "and was written again since" : $"and has {lengthNow} now")
            + ". Open it again, and write new files beside it instead of into it.")
    {
        LengthThen = lengthThen;
        LengthNow = lengthNow;
    }

    /// <summary>Its length when it was opened.</summary>
    public long LengthThen { get; }

    /// <summary>Its length now; -1 if it is gone.</summary>
    public long LengthNow { get; }
}
