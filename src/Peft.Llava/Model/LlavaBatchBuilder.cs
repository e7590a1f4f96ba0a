using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Turns encoded samples into a final <see cref="LlavaBatch"/>: puts each image's feature rows in the place of its placeholder (LLaVA's
/// <c>prepare_inputs_labels_for_multimodal</c>, without the features themselves), drops the labels there, truncates the merged sequence.
/// Holds no state that a call changes: prefetch threads may share one.
/// </summary>
public sealed class LlavaBatchBuilder
{
    /// <summary>The id that stands for one image.</summary>
    public const long ImagePlaceholder = -200;

    /// <summary>The label that is not learned.</summary>
    public const long IgnoredLabel = -100;

    private readonly LlavaConfig _config;
    private readonly LlavaBatchOptions _options;
    private readonly bool _merge;
    private readonly int _maxLength;

    /// <summary>Creates a builder.</summary>
    /// <param name="config">The model's configuration, with the tower's sizes (<see cref="LlavaModel.Config"/>).</param>
    /// <param name="options">How samples are read; null for the defaults.</param>
    /// <exception cref="InvalidConfigurationException">
    /// The configuration asks for <c>tune_mm_mlp_adapter</c> together with <c>mm_use_im_start_end</c>, which LLaVA's merge refuses.
    /// </exception>
    public LlavaBatchBuilder(LlavaConfig config, LlavaBatchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        if (config.TuneProjectorOnly && config.UseImageStartEnd)
            throw new InvalidConfigurationException(config.Source, ["tune_mm_mlp_adapter together with mm_use_im_start_end is not implemented "
                + "(LLaVA's merge raises NotImplementedError): pretrain the projector without start and end ids."]);
        _config = config;
        _options = options ?? new LlavaBatchOptions();
        _merge = _options.MergeTiles ?? config.ImageAspectRatio == "anyres";
        _maxLength = _options.MaxLength ?? config.MaxLength ?? int.MaxValue;
    }

    /// <summary>Builds a batch.</summary>
    /// <param name="samples">At least one sample; nothing of them is kept.</param>
    /// <returns>A fresh batch on the CPU; the caller disposes it.</returns>
    /// <exception cref="BatchException">Ids, labels, images and configuration of a sample do not fit together.</exception>
    public LlavaBatch Build(IReadOnlyList<LlavaBatchSample> samples)
    {
        ArgumentNullException.ThrowIfNull(samples);
        ArgumentOutOfRangeException.ThrowIfZero(samples.Count);
        var rows = new PackedRows();
        var (lengths, tiles) = (new List<int>(samples.Count), new List<int>(samples.Count));
        bool labelled = samples.All(s => s.Labels is not null);
        foreach (var sample in samples)
        {
            int before = rows.TokenIds.Count, tilesBefore = rows.TileCount;
            Append(sample, rows);
            lengths.Add(rows.TokenIds.Count - before);
            tiles.Add(rows.TileCount - tilesBefore);
        }
        var layout = new SequenceLayout(lengths, _options.PaddingSide ?? _config.PaddingSide);
        using var scope = NewDisposeScope();
        var (targetRows, targets, supervised) = labelled ? Targets(layout, rows.Labels) : ([], [], new int[samples.Count]);
        int perTile = _config.Vision is null ? 0 : _config.FeaturesPerTile;
        long newline = (long)rows.TileCount * perTile;
        int text = _config.IsHuggingFace ? layout.PaddedLength : Math.Min(samples.Max(s => s.TokenIds.Count), _maxLength);
        return new LlavaBatch(layout, [.. samples.Select(s => s.Id)], tensor(rows.TokenIds.ToArray()),
            labelled ? tensor(rows.Labels.ToArray()) : null, tensor(targetRows.ToArray()), tensor(targets.ToArray()),
            tensor(rows.ImageRows.ToArray()), tensor(rows.FeatureRows.Select(r => r < 0 ? newline : r).ToArray()),
            rows.Pixels.Count == 0 ? null : cat(rows.Pixels, 0), perTile, new SampleCounts(tiles, supervised), samples.Count * text);
    }

    /// <summary>The merged length of a sample in placeholder form, cut as <see cref="Build"/> cuts it.</summary>
    internal int CountTokens(IReadOnlyList<long> ids, IReadOnlyList<(ImageSize Size, int Tiles)> images)
    {
        int count = 0, image = 0;
        foreach (long id in ids)
        {
            bool isImage = id == ImagePlaceholder && image < images.Count;
            count += isImage ? AnyResolution.FeatureRows(_config, images[image].Size, images[image++].Tiles, _merge).Count : 1;
        }
        return Math.Min(count, _maxLength);
    }

    private static (List<long> Rows, List<long> Ids, int[] Counts) Targets(SequenceLayout layout, List<long> labels)
    {
        var rows = new List<long>();
        var ids = new List<long>();
        var counts = new int[layout.Count];
        for (int sample = 0; sample < layout.Count; sample++)
        {
            for (int i = 1; i < layout.Lengths[sample]; i++)
            {
                int row = layout.Offsets[sample] + i;
                if (labels[row] == IgnoredLabel) continue;
                rows.Add(row - 1);
                ids.Add(labels[row]);
                counts[sample]++;
            }
        }
        return (rows, ids, counts);
    }

    private void Append(LlavaBatchSample sample, PackedRows rows)
    {
        Check(sample);
        bool placeholders = sample.TokenIds.Contains(ImagePlaceholder);
        long? expandedId = placeholders ? null : _config.ImageTokenId;
        bool textOnly = !placeholders && (expandedId is null || !sample.TokenIds.Contains(expandedId.Value));
        var images = ImagesOf(sample, textOnly, placeholders);
        var features = images.Select(image => FeatureRows(sample, image)).ToList();
        var merged = Merge(sample, placeholders, expandedId, features);
        if (merged.Count > _maxLength)
        {
            if (!_options.Truncate)
                throw new BatchException(sample.Id, $"has {merged.Count} tokens with its image features, above the limit of {_maxLength}. "
                    + "Shorten it, raise tokenizer_model_max_length, or allow truncation (LlavaBatchOptions.Truncate).");
            merged.RemoveRange(_maxLength, merged.Count - _maxLength);
        }
        // An image that nothing refers to any more costs nothing, unless LLaVA's own cost is wanted.
        var used = merged.Where(m => m.Image >= 0).Select(m => m.Image).ToHashSet();
        var firstTile = new int[images.Count];
        for (int i = 0; i < images.Count; i++)
        {
            if (!used.Contains(i) && !_options.TextOnlySamplesOwnAnImage) continue;
            firstTile[i] = rows.TileCount;
            rows.TileCount += images[i].TileCount;
            rows.Pixels.Add(images[i].Pixels);
        }
        foreach (var (id, label, image, feature) in merged)
        {
            if (image >= 0)
            {
                rows.ImageRows.Add(rows.TokenIds.Count);
                rows.FeatureRows.Add(feature < 0 ? AnyResolution.Newline : (long)firstTile[image] * _config.FeaturesPerTile + feature);
            }
            rows.TokenIds.Add(id);
            rows.Labels.Add(label);
        }
    }

    private List<(long Id, long Label, int Image, int Feature)> Merge(
        LlavaBatchSample sample, bool placeholders, long? expandedId, List<IReadOnlyList<int>> features)
    {
        var merged = new List<(long, long, int, int)>(sample.TokenIds.Count + features.Sum(f => f.Count));
        int image = 0, feature = 0;
        for (int i = 0; i < sample.TokenIds.Count; i++)
        {
            long id = sample.TokenIds[i];
            if (placeholders && id == ImagePlaceholder)
            {
                foreach (int row in features[image]) merged.Add((_config.ImageTokenId ?? 0, IgnoredLabel, image, row));
                image++;
            }
            else if (id == expandedId)
            {
                while (image < features.Count && feature == features[image].Count) (image, feature) = (image + 1, 0);
                if (image == features.Count) throw ExpandedCount(sample, expandedId.Value, features);
                merged.Add((id, IgnoredLabel, image, features[image][feature++]));
            }
            else
            {
                merged.Add((id, sample.Labels?[i] ?? IgnoredLabel, -1, 0));
            }
        }
        if (expandedId is not null && merged.Count(m => m.Item3 >= 0) is var found && found > 0 && found != features.Sum(f => f.Count))
            throw ExpandedCount(sample, expandedId.Value, features);
        return merged;
    }

    private static BatchException ExpandedCount(LlavaBatchSample sample, long imageId, List<IReadOnlyList<int>> features)
        => new(sample.Id, $"has the image id {imageId} {sample.TokenIds.Count(id => id == imageId)} time(s), but its {features.Count} image(s) give "
            + $"{features.Sum(f => f.Count)} features. Encode it with this model's processor, or use one {ImagePlaceholder} per image.");

    private IReadOnlyList<ImageTiles> ImagesOf(LlavaBatchSample sample, bool textOnly, bool placeholders)
    {
        if (textOnly && !_options.TextOnlySamplesOwnAnImage)
        {
            if (sample.Images.Count > 1)
                throw new BatchException(sample.Id, $"has {sample.Images.Count} images but no image placeholder in its text. "
                    + "Put one placeholder per image, or leave the images out.");
            return [];
        }
        if (textOnly && sample.Images.Count != 1)
            throw new BatchException(sample.Id, $"is text-only and has {sample.Images.Count} images, where LLaVA's rule wants exactly one (dummy) "
                + "image per text-only sample; without it, later samples would get the wrong images. Add it, or switch "
                + "LlavaBatchOptions.TextOnlySamplesOwnAnImage off.");
        if (placeholders && sample.TokenIds.Count(id => id == ImagePlaceholder) is var count && count != sample.Images.Count)
            throw new BatchException(sample.Id, $"has {count} image placeholder(s) but {sample.Images.Count} image(s). "
                + "Each <image> in the text needs one image.");
        return sample.Images;
    }

    private IReadOnlyList<int> FeatureRows(LlavaBatchSample sample, ImageTiles image)
    {
        if (_config.Vision is not { } vision)
            throw new BatchException(sample.Id, "has an image, but the model has no vision tower. Load a LLaVA checkpoint, or leave the image out.");
        long[] shape = image.Pixels.shape;
        if (shape.Length != 4 || shape[0] < 1 || shape[1] != vision.ChannelCount || shape[2] != vision.ImageSize || shape[3] != vision.ImageSize)
            throw new BatchException(sample.Id, $"has pixels of shape ({string.Join(", ", shape)}); the vision tower wants "
                + $"(tiles, {vision.ChannelCount}, {vision.ImageSize}, {vision.ImageSize}). Use this model's image processor.");
        try
        {
            return AnyResolution.FeatureRows(_config, image.Size, image.TileCount, _merge);
        }
        catch (ArgumentException e)
        {
            throw new BatchException(sample.Id, e.Message);
        }
    }

    private void Check(LlavaBatchSample sample)
    {
        if (sample.TokenIds.Count == 0) throw new BatchException(sample.Id, "has no tokens. Leave it out of the data.");
        if (sample.Labels is not null && sample.Labels.Count != sample.TokenIds.Count)
            throw new BatchException(sample.Id, $"has {sample.TokenIds.Count} ids but {sample.Labels.Count} labels. They must be as many.");
        int vocabulary = _config.Language.VocabularySize;
        foreach (long id in sample.TokenIds)
        {
            if (id == ImagePlaceholder || (id >= 0 && id < vocabulary)) continue;
            throw new BatchException(sample.Id, $"holds the id {id}; the model has {vocabulary} rows in its embedding. "
                + "Use this model's tokenizer, or resize the embedding.");
        }
        if (sample.Labels is null) return;
        for (int i = 0; i < sample.Labels.Count; i++)
        {
            long label = sample.Labels[i];
            if (label == IgnoredLabel || (label >= 0 && label < vocabulary) || sample.TokenIds[i] == ImagePlaceholder) continue;
            throw new BatchException(sample.Id, $"holds the label {label} at position {i}; labels are ids below {vocabulary} or {IgnoredLabel}.");
        }
    }

    /// <summary>What a batch is gathered in.</summary>
    private sealed class PackedRows
    {
        public List<long> TokenIds { get; } = [];

        public List<long> Labels { get; } = [];

        public List<long> ImageRows { get; } = [];

        public List<long> FeatureRows { get; } = [];

        public List<Tensor> Pixels { get; } = [];

        public int TileCount { get; set; }
    }
}
