namespace Peft.Llava;

/// <summary>What features are the result of: the tower and the pixels of one tile, by their SHA-256 (see <see cref="Peft.Core.TensorFingerprint"/>).</summary>
/// <param name="Tower">Of the tower's weights, layer, class token and dtype; 64 hexadecimal digits.</param>
/// <param name="Pixels">
/// Of the tile as the tower gets it, which says all about the file's content and how it was processed; 64 hexadecimal digits.
/// </param>
public readonly record struct FeatureKey(string Tower, string Pixels);
