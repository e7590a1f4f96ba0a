namespace Peft.Llava;

/// <summary>Where a (resized) picture lies on a larger canvas.</summary>
/// <param name="Canvas">The canvas.</param>
/// <param name="X">The picture's left edge on it.</param>
/// <param name="Y">The picture's upper edge on it.</param>
/// <param name="Picture">The size of the picture as it lies there.</param>
public readonly record struct ImagePlacement(ImageSize Canvas, int X, int Y, ImageSize Picture);
