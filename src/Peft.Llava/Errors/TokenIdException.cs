using Peft.Core;

namespace Peft.Llava;

/// <summary>An id that is no token of the tokenizer.</summary>
public sealed class TokenIdException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="id">The id.</param>
    /// <param name="position">Its position among the ids given.</param>
    /// <param name="vocabularySize">Number of ids the tokenizer has.</param>
    public TokenIdException(int id, int position, int vocabularySize)
        : base($"Id {id} at position {position} is no token; the tokenizer has ids 0 to {vocabularySize - 1}. "
            + "Take image placeholders (-200) and ignored labels (-100) out first, and check that the ids come from this tokenizer.")
    {
        Id = id;
        Position = position;
    }

    /// <summary>The id.</summary>
    public int Id { get; }

    /// <summary>Its position among the ids given.</summary>
    public int Position { get; }
}
