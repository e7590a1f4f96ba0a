using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// A final batch: merged, truncated, packed (no padding; see <see cref="SequenceLayout"/>). Nothing about it is decided later: the model
/// looks up <see cref="TokenIds"/>, writes feature rows <see cref="FeatureRows"/> to rows <see cref="ImageRows"/>, and computes logits at
/// <see cref="TargetRows"/>. Made by <see cref="LlavaBatchBuilder"/>; owns its tensors.
/// </summary>
/// <remarks>
/// Letters: B samples, N packed tokens, M image rows, S supervised rows, tiles x P features per tile.
/// A feature row counts through all tiles (tile * P + feature); the number after the last one is the <c>image_newline</c> row.
/// </remarks>
public sealed class LlavaBatch : IDisposable
{
    internal LlavaBatch(
        SequenceLayout layout, IReadOnlyList<string> sampleIds, Tensor tokenIds, Tensor? labels, Tensor targetRows, Tensor targets,
        Tensor imageRows, Tensor featureRows, Tensor? pixels, int featuresPerTile, SampleCounts counts, int textTokens)
    {
        PaddedTextTokens = textTokens;
        Layout = layout;
        SampleIds = sampleIds;
        TokenIds = tokenIds.DetachFromDisposeScope();
        Labels = labels?.DetachFromDisposeScope();
        TargetRows = targetRows.DetachFromDisposeScope();
        Targets = targets.DetachFromDisposeScope();
        ImageRows = imageRows.DetachFromDisposeScope();
        FeatureRows = featureRows.DetachFromDisposeScope();
        Pixels = pixels?.DetachFromDisposeScope();
        FeaturesPerTile = featuresPerTile;
        Counts = counts;
    }

    /// <summary>Where each sample's tokens lie.</summary>
    public SequenceLayout Layout { get; }

    /// <summary>The samples' ids, for messages.</summary>
    public IReadOnlyList<string> SampleIds { get; }

    /// <summary>I64 (N): text ids; rows that hold an image feature have the image id (llava-hf) or 0.</summary>
    public Tensor TokenIds { get; }

    /// <summary>I64 (N), not shifted; -100 is ignored. Null for a batch without labels.</summary>
    public Tensor? Labels { get; }

    /// <summary>I64 (S): the packed rows whose next token is supervised, in order.</summary>
    public Tensor TargetRows { get; }

    /// <summary>I64 (S): the id to predict at each of <see cref="TargetRows"/>.</summary>
    public Tensor Targets { get; }

    /// <summary>S, the number of supervised tokens.</summary>
    public long SupervisedTokens => TargetRows.shape[0];

    /// <summary>I64 (M): the packed rows that hold an image feature.</summary>
    public Tensor ImageRows { get; }

    /// <summary>I64 (M): the feature row that goes to each of <see cref="ImageRows"/>.</summary>
    public Tensor FeatureRows { get; }

    /// <summary>(tiles, 3, S, S): the pixels of all tiles, or null when no image takes part.</summary>
    public Tensor? Pixels { get; }

    /// <summary>Number of tiles in <see cref="Pixels"/>.</summary>
    public long TileCount => Pixels?.shape[0] ?? 0;

    /// <summary>P: features that one tile gives.</summary>
    public int FeaturesPerTile { get; }

    /// <summary>Ids of the rectangular batch that a Python peer would have passed to the model, padding included: before LLaVA's merge of the images, after llava-hf's.</summary>
    internal int PaddedTextTokens { get; }

    /// <summary>What each sample has of the batch's tiles and supervised tokens.</summary>
    internal SampleCounts Counts { get; }

    /// <summary>The batch on another device; pixels in another dtype too, if asked for.</summary>
    /// <param name="device">The device.</param>
    /// <param name="pixelDtype">The dtype of the pixels, or null to keep it.</param>
    /// <returns>A fresh batch that owns its tensors; this one stays as it is.</returns>
    public LlavaBatch To(Device device, ScalarType? pixelDtype = null)
    {
        using var scope = NewDisposeScope();
        Tensor Move(Tensor t) => t.to(t.dtype, device, copy: true);
        return new LlavaBatch(Layout, SampleIds, Move(TokenIds), Labels is null ? null : Move(Labels), Move(TargetRows), Move(Targets),
            Move(ImageRows), Move(FeatureRows), Pixels?.to(pixelDtype ?? Pixels.dtype, device, copy: true), FeaturesPerTile, Counts, PaddedTextTokens);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        TokenIds.Dispose();
        Labels?.Dispose();
        TargetRows.Dispose();
        Targets.Dispose();
        ImageRows.Dispose();
        FeatureRows.Dispose();
        Pixels?.Dispose();
    }
}
