namespace Peft.Llava;

/// <summary>A half-open range of UTF-16 positions in a text: <c>text[Start..End]</c>.</summary>
/// <param name="Start">The first position.</param>
/// <param name="End">The position after the last.</param>
public readonly record struct TextSpan(int Start, int End)
{
    /// <summary>The span of a token that stands for no text at all (BOS, EOS).</summary>
    public static TextSpan None { get; } = new(-1, -1);

    /// <summary>True for <see cref="None"/>.</summary>
    public bool IsNone => Start < 0;

    /// <summary>Number of UTF-16 units.</summary>
    public int Length => End - Start;

    /// <summary>
    /// True if the two share text. An empty span (a lone dummy space at the start of a piece of text) goes with the character after it.
    /// </summary>
    public bool Overlaps(TextSpan other)
        => !IsNone && (Start == End ? other.Start <= Start && Start < other.End : Start < other.End && End > other.Start);
}
