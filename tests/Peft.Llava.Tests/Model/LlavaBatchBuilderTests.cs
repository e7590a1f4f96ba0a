using System.Text.Json.Nodes;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class LlavaBatchBuilderTests
{
    private static readonly LlavaConfig Config = TinyConfig();

    [Fact]
    public void Tiles_that_do_not_fit_the_configuration_are_said_with_the_sample()
    {
        using var tiny = TinyLlava.Create();
        using var pixels = zeros(3, 3, 28, 28);
        var builder = new LlavaBatchBuilder(tiny.Model.Config.With("mm_patch_merge_type", "spatial"), new() { MergeTiles = true });
        Assert.Contains("it has 3 tiles, but image_aspect_ratio is 'pad'; tiles are stitched only for anyres.",
            Assert.Throws<BatchException>(() => builder.Build([new("odd", [1, -200], null, [new ImageTiles(pixels, new ImageSize(56, 28))])])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Features_take_the_place_of_the_placeholder_and_the_next_token_rule_crosses_no_sample()
    {
        using var scope = NewDisposeScope();
        using var batch = Build(null, new("a", [1, 7, -200, 8, 2], [-100, -100, -200, 8, 2], [Image()]), new("b", [1, 5, 6], [-100, 5, 6], []));
        int p = Config.FeaturesPerTile;
        Assert.Equal([4 + p, 3], batch.Layout.Lengths);
        Assert.Equal([1, 7, .. new long[p], 8, 2, 1, 5, 6], batch.TokenIds.data<long>().ToArray());
        Assert.Equal([.. Enumerable.Range(2, p).Select(i => (long)i)], batch.ImageRows.data<long>().ToArray());
        Assert.Equal([1 + p, 2 + p, 4 + p, 5 + p], batch.TargetRows.data<long>().ToArray());
        Assert.Equal([8, 2, 5, 6], batch.Targets.data<long>().ToArray());
        Assert.Equal(4, batch.SupervisedTokens);
    }

    [Fact]
    public void An_image_that_truncation_removes_costs_no_tile()
    {
        using var scope = NewDisposeScope();
        using var batch = Build(new() { MaxLength = 3 }, new LlavaBatchSample("a", [1, 7, 8, -200], null, [Image()]));
        Assert.Equal(0, batch.TileCount);
        Assert.Null(batch.Labels);
        using var exact = Build(new() { MaxLength = 3, TextOnlySamplesOwnAnImage = true }, new LlavaBatchSample("a", [1, 7, 8, -200], null, [Image()]));
        Assert.Equal(1, exact.TileCount);
    }

    [Fact]
    public void A_dummy_image_of_a_text_only_sample_is_left_out_unless_LLaVAs_rule_is_on()
    {
        using var scope = NewDisposeScope();
        var sample = new LlavaBatchSample("a", [1, 7], null, [Image()]);
        using var plain = Build(null, sample);
        using var exact = Build(new() { TextOnlySamplesOwnAnImage = true }, sample);
        Assert.Equal((0, 1), (plain.TileCount, exact.TileCount));
        Refused("is text-only and has 0 images, where LLaVA's rule wants exactly one (dummy) image per text-only sample; without it, later samples "
            + "would get the wrong images. Add it, or switch LlavaBatchOptions.TextOnlySamplesOwnAnImage off.",
            new() { TextOnlySamplesOwnAnImage = true }, sample with { Images = [] });
    }

    [Fact]
    public void Samples_that_do_not_fit_are_refused_by_name()
    {
        using var scope = NewDisposeScope();
        Refused("has no tokens. Leave it out of the data.", null, new("a", [], null, []));
        Refused("has 2 ids but 1 labels. They must be as many.", null, new("a", [1, 2], [1], []));
        Refused($"holds the id 999; the model has {Config.Language.VocabularySize} rows in its embedding. Use this model's tokenizer, or resize the embedding.",
            null, new("a", [1, 999], null, []));
        Refused($"holds the label -7 at position 1; labels are ids below {Config.Language.VocabularySize} or -100.", null, new("a", [1, 2], [-100, -7], []));
        Refused("has 1 image placeholder(s) but 2 image(s). Each <image> in the text needs one image.", null, new("a", [1, -200], null, [Image(), Image()]));
        Refused("has 2 images but no image placeholder in its text. Put one placeholder per image, or leave the images out.", null, new("a", [1, 2], null, [Image(), Image()]));
        Refused("has pixels of shape (1, 3, 5, 5); the vision tower wants (tiles, 3, 28, 28). Use this model's image processor.", null,
            new("a", [1, -200], null, [new ImageTiles(zeros(1, 3, 5, 5), new ImageSize(5, 5))]));
        Refused($"has {1 + Config.FeaturesPerTile} tokens with its image features, above the limit of 4. Shorten it, raise tokenizer_model_max_length, or allow "
            + "truncation (LlavaBatchOptions.Truncate).", new() { MaxLength = 4, Truncate = false }, new("a", [1, -200], null, [Image()]));
    }

    [Fact]
    public void Expanded_image_ids_must_be_as_many_as_features()
    {
        using var scope = NewDisposeScope();
        var config = LlavaConfig.Parse(new JsonObject
        {
            ["model_type"] = "llava", ["image_token_index"] = 90, ["text_config"] = new JsonObject { ["vocab_size"] = 99 },
            ["vision_config"] = new JsonObject { ["image_size"] = 28, ["patch_size"] = 14, ["hidden_size"] = 24, ["num_attention_heads"] = 3 },
        });
        var builder = new LlavaBatchBuilder(config);
        using var batch = builder.Build([new("a", [1, 90, 90, 90, 90, 5], null, [Image()])]);
        Assert.Equal([0, 1, 2, 3], batch.FeatureRows.data<long>().ToArray());
        using var same = builder.Build([new("a", [1, -200, 5], null, [Image()])]);
        TensorAssert.Equal(batch.TokenIds, same.TokenIds, "ids");
        foreach (int count in (int[])[3, 5])
        {
            var e = Assert.Throws<BatchException>(() => builder.Build([new("a", [1, .. Enumerable.Repeat(90L, count)], null, [Image()])]));
            Assert.Equal($"Sample 'a': has the image id 90 {count} time(s), but its 1 image(s) give 4 features. Encode it with this model's processor, "
                + "or use one -200 per image.", e.Message);
        }
    }

    [Fact]
    public void Building_leaves_nothing_behind_once_the_batch_is_disposed()
    {
        using var image = zeros(1, 3, 28, 28);
        var sample = new LlavaBatchSample("a", [1, -200, 4], [-100, -200, 4], [new ImageTiles(image, new ImageSize(28, 28))]);
        LeakGuard.AssertFlat(5, () =>
        {
            using var batch = Build(null, sample);
            using var moved = batch.To(CPU, ScalarType.BFloat16);
            Assert.Equal(ScalarType.BFloat16, moved.Pixels!.dtype);
        });
    }

    private static ImageTiles Image() => new(zeros(1, 3, 28, 28), new ImageSize(28, 28));

    private static LlavaBatch Build(LlavaBatchOptions? options, params LlavaBatchSample[] samples) => new LlavaBatchBuilder(Config, options).Build(samples);

    private static void Refused(string message, LlavaBatchOptions? options, LlavaBatchSample sample)
    {
        var e = Assert.Throws<BatchException>(() => Build(options, sample));
        Assert.Equal("a", e.SampleId);
        Assert.Equal("Sample 'a': " + message, e.Message);
    }

    private static LlavaConfig TinyConfig()
    {
        using var tiny = TinyLlava.Create();
        return tiny.Model.Config;
    }
}
