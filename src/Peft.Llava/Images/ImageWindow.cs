namespace Peft.Llava;

/// <summary>A rectangle inside a picture.</summary>
/// <param name="X">Its left edge.</param>
/// <param name="Y">Its upper edge.</param>
/// <param name="Width">Its width.</param>
/// <param name="Height">Its height.</param>
public readonly record struct ImageWindow(int X, int Y, int Width, int Height);
