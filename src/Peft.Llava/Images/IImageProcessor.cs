namespace Peft.Llava;

/// <summary>
/// Turns decoded pictures into the vision tower's input. An implementation holds no state that a call changes, so prefetch threads may
/// share one.
/// </summary>
public interface IImageProcessor
{
    /// <summary>The side C of a tile: the vision tower's input size.</summary>
    int TileSize { get; }

    /// <summary>How many tiles a picture of this size makes: 1, or more with any-resolution.</summary>
    /// <param name="size">The picture's size, width first.</param>
    int TileCount(ImageSize size);

    /// <summary>Writes a picture's tiles.</summary>
    /// <param name="image">The decoded picture.</param>
    /// <param name="destination">
    /// Receives float32 [tiles, 3, C, C], channel planes R, G, B, normalised; exactly <c>TileCount(image.Size) * 3 * C * C</c> elements.
    /// </param>
    void Process(RgbImage image, Span<float> destination);
}
