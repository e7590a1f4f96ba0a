namespace Peft.Llava;

/// <summary>A conversation as one text, with the parts a model learns to write.</summary>
/// <param name="Text">The text.</param>
/// <param name="Supervised">
/// The assistant's texts, each with the one space that joins it to its role and with its end token, in UTF-16 positions.
/// </param>
public sealed record RenderedPrompt(string Text, IReadOnlyList<TextSpan> Supervised);
