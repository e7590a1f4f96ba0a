namespace Peft.Llava;

/// <summary>A sample as ids, labels and pixels. Owns its pixels: dispose it.</summary>
/// <param name="Sample">What it was made of.</param>
/// <param name="Text">Ids and labels, in placeholder form (-200 for an image).</param>
/// <param name="Images">Its images in the order of their placeholders; for a text-only sample none, or one zero picture (LLaVA's way).</param>
public sealed record EncodedSample(LlavaSample Sample, LabeledText Text, IReadOnlyList<ImageTiles> Images) : IDisposable
{
    /// <summary>Number of ids, an image counting one.</summary>
    public int Length => Text.Ids.Count;

    /// <summary>Disposes the pixels.</summary>
    public void Dispose()
    {
        foreach (var image in Images) image.Pixels.Dispose();
    }
}
