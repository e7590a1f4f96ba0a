using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Tensors from an image processor.</summary>
public static class ImageProcessorExtensions
{
    /// <summary>A picture's tiles.</summary>
    /// <param name="processor">The processor.</param>
    /// <param name="image">The decoded picture.</param>
    /// <returns>float32 [tiles, 3, C, C] on the CPU; the caller disposes it (it belongs to the calling thread's dispose scope, if there is one).</returns>
    public static Tensor ToTensor(this IImageProcessor processor, RgbImage image)
    {
        ArgumentNullException.ThrowIfNull(processor);
        ArgumentNullException.ThrowIfNull(image);
        long side = processor.TileSize;
        var result = empty([processor.TileCount(image.Size), 3, side, side], ScalarType.Float32);
        try
        {
            processor.Process(image, MemoryMarshal.Cast<byte, float>(result.bytes));
            return result;
        }
        catch
        {
            result.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Several pictures by the rule of LLaVA's <c>process_images</c>: one tensor if all have the same shape, else a list. A policy that
    /// makes one tile per picture gives [3, C, C] each, any-resolution [tiles, 3, C, C].
    /// </summary>
    /// <param name="processor">The processor.</param>
    /// <param name="images">The decoded pictures, at least one.</param>
    /// <returns>The tensors; the caller disposes it.</returns>
    public static ImageTensors ToTensors(this ClipImageProcessor processor, IReadOnlyList<RgbImage> images)
    {
        ArgumentNullException.ThrowIfNull(processor);
        ArgumentNullException.ThrowIfNull(images);
        ArgumentOutOfRangeException.ThrowIfZero(images.Count, nameof(images));
        using var scope = NewDisposeScope();
        var tensors = new List<Tensor>(images.Count);
        foreach (var image in images)
        {
            var tiles = processor.ToTensor(image);
            tensors.Add(processor.Aspect == AspectPolicy.AnyResolution ? tiles : tiles[0]);
        }
        bool same = tensors.TrueForAll(t => t.shape.SequenceEqual(tensors[0].shape));
        return same
            ? new ImageTensors(stack(tensors).MoveToOuterDisposeScope(), null)
            : new ImageTensors(null, [.. tensors.Select(t => t.MoveToOuterDisposeScope())]);
    }
}
