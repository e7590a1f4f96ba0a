namespace Peft.Llava;

/// <summary>A token that is found in the text before anything else happens to it.</summary>
/// <param name="Content">The token's text.</param>
/// <param name="Id">Its id.</param>
/// <param name="IsSpecial">Special tokens are left out when decoding with <see cref="DecodeOptions.SkipSpecialTokens"/>.</param>
/// <param name="StripLeft">Blanks before it belong to it.</param>
/// <param name="StripRight">Blanks after it belong to it.</param>
/// <param name="IsNormalized">
/// Whether it is looked for in the normalized text (<c>normalized</c>). <see cref="TokenizerBehavior.Fast"/>, whose normalizer puts a mark before every word, finds it
/// only after a space or at the beginning; the others have no normalizer and find it anywhere.
/// </param>
public sealed record AddedToken(string Content, int Id, bool IsSpecial, bool StripLeft = false, bool StripRight = false, bool IsNormalized = false);
