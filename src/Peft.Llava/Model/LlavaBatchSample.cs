using TorchSharp;

namespace Peft.Llava;

/// <summary>One encoded sample, before merging: text ids with a placeholder per image, and the images' pixels.</summary>
/// <param name="Id">The sample's id, for messages.</param>
/// <param name="TokenIds">
/// Ids without padding. An image is one <see cref="LlavaBatchBuilder.ImagePlaceholder"/> (-200); in the llava-hf layouts the ids may instead hold
/// the image id once per feature, as their processors write it.
/// </param>
/// <param name="Labels">As long as the ids; -100 is ignored. Null when there is nothing to learn (generation).</param>
/// <param name="Images">The sample's images in the order of their placeholders.</param>
public sealed record LlavaBatchSample(
    string Id, IReadOnlyList<long> TokenIds, IReadOnlyList<long>? Labels, IReadOnlyList<ImageTiles> Images);

/// <summary>The pixels of one image: one square tile, or several where any resolution is on (the base image first).</summary>
/// <param name="Pixels">(tiles, 3, S, S), floating point, already normalised. Not owned: the builder copies it.</param>
/// <param name="Size">The size of the original image; only any resolution needs it.</param>
public sealed record ImageTiles(torch.Tensor Pixels, ImageSize Size)
{
    /// <summary>Number of tiles.</summary>
    public int TileCount => checked((int)Pixels.shape[0]);
}
