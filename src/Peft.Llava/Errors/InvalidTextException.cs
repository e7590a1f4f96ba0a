using Peft.Core;

namespace Peft.Llava;

/// <summary>A text holds half of a surrogate pair, which stands for no character and has no bytes.</summary>
public sealed class InvalidTextException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="text">The text.</param>
    /// <param name="position">Position of the lone surrogate.</param>
    public InvalidTextException(string text, int position)
        : base($"The text holds a lone surrogate U+{(int)text[position]:X4} at position {position} (of {text.Length}). "
            + "It was cut inside a character or decoded wrongly; repair it where it is read.")
    {
        Position = position;
    }

    /// <summary>Position of the lone surrogate.</summary>
    public int Position { get; }
}
