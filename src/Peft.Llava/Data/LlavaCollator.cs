using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Samples as LLaVA's collator stacks them: padded on the right, images still one placeholder each. Owns its tensors.</summary>
/// <param name="InputIds">I64 [B, T], padded with the padding id.</param>
/// <param name="Labels">I64 [B, T], padded with -100.</param>
/// <param name="AttentionMask">Bool [B, T], true where the id is not the padding id.</param>
/// <param name="Images">Per sample with pixels, in order: float32 [tiles, 3, C, C].</param>
public sealed record PlaceholderBatch(Tensor InputIds, Tensor Labels, Tensor AttentionMask, IReadOnlyList<Tensor> Images) : IDisposable
{
    /// <summary>Disposes the tensors.</summary>
    public void Dispose()
    {
        InputIds.Dispose();
        Labels.Dispose();
        AttentionMask.Dispose();
        foreach (var image in Images) image.Dispose();
    }
}

/// <summary>Puts encoded samples together.</summary>
public sealed class LlavaCollator
{
    private readonly LlamaTokenizer _tokenizer;
    private readonly DataOptions _options;
    private readonly LlavaBatchBuilder? _builder;

    /// <summary>Creates a collator.</summary>
    /// <param name="tokenizer">For the padding id (the unknown token's where there is none, as LLaVA takes it) and the length limit.</param>
    /// <param name="options">The options that the samples were encoded with; null for the defaults.</param>
    /// <param name="builder">Merges ids and images into a model's batch; null if only <see cref="Stack"/> is used.</param>
    public LlavaCollator(LlamaTokenizer tokenizer, DataOptions? options = null, LlavaBatchBuilder? builder = null)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        _tokenizer = tokenizer;
        _options = options ?? new DataOptions();
        _builder = builder;
    }

    private int MaxLength => _tokenizer.ModelMaxLength ?? int.MaxValue;

    private int PadId => _tokenizer.PadId ?? _tokenizer.UnknownId ?? 0;

    /// <summary>The model's batch: merged, without padding. This is what training takes.</summary>
    /// <param name="samples">The samples; they stay the caller's.</param>
    /// <returns>The batch; the caller disposes it.</returns>
    /// <exception cref="BatchException">Ids, images and model do not fit together.</exception>
    public LlavaBatch Collate(IReadOnlyList<EncodedSample> samples)
    {
        ArgumentNullException.ThrowIfNull(samples);
        if (_builder is null) throw new InvalidOperationException("This collator was made without a LlavaBatchBuilder; give it one of the model's.");
        return _builder.Build([.. samples.Select(Cut)]);
    }

    /// <summary>LLaVA's collated form, for comparison and for models that merge by themselves.</summary>
    /// <param name="samples">The samples; they stay the caller's.</param>
    /// <returns>The batch; the caller disposes it.</returns>
    public PlaceholderBatch Stack(IReadOnlyList<EncodedSample> samples)
    {
        ArgumentNullException.ThrowIfNull(samples);
        int length = Math.Min(samples.Max(s => s.Length), MaxLength);
        var ids = new long[samples.Count * length];
        var labels = new long[ids.Length];
        Array.Fill(ids, PadId);
        Array.Fill(labels, LabelBuilder.Ignored);
        for (int b = 0; b < samples.Count; b++)
        {
            for (int t = 0; t < Math.Min(length, samples[b].Length); t++)
            {
                ids[b * length + t] = samples[b].Text.Ids[t];
                labels[b * length + t] = samples[b].Text.Labels[t];
            }
        }
        using var scope = NewDisposeScope();
        var inputIds = tensor(ids, [samples.Count, length]);
        return new PlaceholderBatch(
            inputIds.DetachFromDisposeScope(), tensor(labels, [samples.Count, length]).DetachFromDisposeScope(),
            inputIds.ne(PadId).DetachFromDisposeScope(),
            [.. samples.SelectMany(s => s.Images).Select(image => image.Pixels.clone().DetachFromDisposeScope())]);
    }

    /// <summary>The length that a sample has in <see cref="Collate"/>'s batch.</summary>
    internal int CountTokens(LabeledText text, IReadOnlyList<(ImageSize Size, int Tiles)> images) => _builder!.CountTokens(Cut(text).Ids, images);

    private (List<long> Ids, List<long> Labels) Cut(LabeledText text)
    {
        var ids = new List<long>(text.Ids.Count);
        var labels = new List<long>(text.Ids.Count);
        for (int i = 0; i < Math.Min(text.Ids.Count, MaxLength); i++)
        {
            if (_options.MaskPaddingIds && text.Ids[i] == PadId) continue;
            ids.Add(text.Ids[i]);
            labels.Add(text.Labels[i]);
        }
        return (ids, labels);
    }

    private LlavaBatchSample Cut(EncodedSample sample)
    {
        var (ids, labels) = Cut(sample.Text);
        // Images whose placeholder was cut off go with it; a text-only sample keeps its zero picture.
        int placeholders = ids.Count(id => id == LlamaTokenizer.ImageTokenId);
        var images = placeholders == 0 && _options.ZeroImageForTextOnly ? sample.Images.Take(1) : sample.Images.Take(placeholders);
        return new LlavaBatchSample(sample.Sample.Id, ids, labels, [.. images]);
    }
}
