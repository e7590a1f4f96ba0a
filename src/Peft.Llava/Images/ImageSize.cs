namespace Peft.Llava;

/// <summary>A picture's size in pixels, width first as in Pillow and in LLaVA's rules.</summary>
/// <param name="Width">Pixels from left to right.</param>
/// <param name="Height">Pixels from top to bottom.</param>
public readonly record struct ImageSize(int Width, int Height)
{
    /// <summary>Width times height.</summary>
    public long Area => (long)Width * Height;

    /// <inheritdoc/>
    public override string ToString() => $"{Width}x{Height}";
}
