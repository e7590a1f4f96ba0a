namespace Peft.Core;

/// <summary>
/// Root of every exception these packages throw on purpose. The message says what is wrong, with the data, and what to do next;
/// derived types carry the data as properties.
/// </summary>
public abstract class PeftException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What is wrong, with its data, and the next step.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    protected PeftException(string message, Exception? innerException = null)
        : base(message, innerException)
    {
    }
}
