namespace Peft.Llava;

/// <summary>
/// Which of the two passes of a resize runs first. The picture between them is rounded to 8 bits, so the result differs by some levels.
/// </summary>
public enum PassOrder
{
    /// <summary>
    /// Pillow 13: vertical first if the height shrinks and does so by more than twice as many pixels as the width, else horizontal first.
    /// </summary>
    Current,

    /// <summary>Pillow 10.4: always horizontal first; by the dates, what LLaVA's published checkpoints were trained with.</summary>
    HorizontalFirst,
}
