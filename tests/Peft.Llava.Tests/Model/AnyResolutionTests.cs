using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests;

public sealed class AnyResolutionTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("unpad");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Grid_bounds_and_token_counts_equal_both_peers(string folder)
    {
        var golden = new GoldenCase(folder);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = UnitCases.Expected(golden);
        var s = golden.Json.GetProperty("settings");
        int tile = s.GetProperty("tile").GetInt32(), side = s.GetProperty("patches_per_side").GetInt32();
        ImageSize[] pinpoints = [.. s.GetProperty("pinpoints_width_height").EnumerateArray().Select(p => new ImageSize(p[0].GetInt32(), p[1].GetInt32()))];
        long[] sizes = [.. inputs.Load("image_sizes").data<long>()];
        foreach (var (peer, layout) in new[] { ("llava", CheckpointLayout.Original), ("hf", CheckpointLayout.HuggingFaceNext) })
        {
            var config = Config(layout, pinpoints, tile, side);
            var rounding = layout == CheckpointLayout.Original ? UnpadRounding.Truncate : UnpadRounding.RoundThenTruncate;
            long[] Rows(string name) => [.. expected.Load($"{name}_{peer}").data<long>()];
            var (best, grid, bounds, counts) = (Rows("best"), Rows("grid"), Rows("bounds"), Rows("token_count"));
            for (int i = 0; i < sizes.Length / 2; i++)
            {
                var size = new ImageSize((int)sizes[2 * i], (int)sizes[2 * i + 1]);
                var resolution = AnyResolutionGrid.SelectBestResolution(size, pinpoints);
                Assert.Equal((best[2 * i], best[2 * i + 1]), (resolution.Width, resolution.Height));
                var (columns, rows) = AnyResolutionGrid.GridShape(size, pinpoints, tile);
                Assert.Equal((grid[2 * i], grid[2 * i + 1]), (columns, rows));
                var window = AnyResolution.Unpad(size, columns * side, rows * side, rounding);
                if (window.Rows * window.Columns == 0) window = default;
                Assert.Equal((bounds[4 * i], bounds[4 * i + 1], bounds[4 * i + 2], bounds[4 * i + 3]),
                    (window.RowStart, window.RowEnd, window.ColumnStart, window.ColumnEnd));
                Assert.Equal(counts[i], AnyResolution.FeatureRows(config, size, 1 + columns * rows, merge: true).Count);
            }
        }
    }

    [Fact]
    public void Tiles_that_do_not_fit_the_grid_are_refused_with_both_counts()
    {
        var config = Config(CheckpointLayout.Original, [new(42, 84)], 42, 3);
        var e = Assert.Throws<ArgumentException>(() => AnyResolution.FeatureRows(config, new ImageSize(40, 80), 4, merge: true));
        Assert.Equal("an image of 40x80 gets 1 x 2 tiles and the base image, but 4 tiles were given; image_grid_pinpoints of the processor and of "
            + "the model must be the same.", e.Message);
    }

    [Fact]
    public void Several_tiles_need_patch_features_and_anyres()
    {
        var config = Config(CheckpointLayout.Original, [new(42, 84)], 42, 3);
        var e = Assert.Throws<ArgumentException>(
            () => AnyResolution.FeatureRows(config.With("mm_vision_select_feature", "cls_patch"), new ImageSize(40, 80), 3, merge: true));
        Assert.StartsWith("the class token is kept (cls_patch), but an image of several tiles is stitched from patches alone", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<ArgumentException>(
            () => AnyResolution.FeatureRows(config.With("image_aspect_ratio", "pad"), new ImageSize(40, 80), 3, merge: true));
        Assert.Equal("it has 3 tiles, but image_aspect_ratio is 'pad'; tiles are stitched only for anyres.", e.Message);
    }

    private static LlavaConfig Config(CheckpointLayout layout, IReadOnlyList<ImageSize> pinpoints, int tile, int side)
    {
        bool next = layout == CheckpointLayout.HuggingFaceNext;
        var points = new JsonArray([.. pinpoints.Select(p => (JsonNode)(next ? new JsonArray(p.Height, p.Width) : new JsonArray(p.Width, p.Height)))]);
        var vision = new JsonObject { ["hidden_size"] = 16, ["num_attention_heads"] = 2, ["image_size"] = tile, ["patch_size"] = tile / side };
        var document = next
            ? new JsonObject { ["model_type"] = "llava_next", ["text_config"] = new JsonObject(), ["vision_config"] = vision, ["image_grid_pinpoints"] = points }
            : new JsonObject
            {
                ["model_type"] = "llava_llama", ["mm_vision_tower"] = "tower", ["mm_projector_type"] = "mlp2x_gelu", ["mm_patch_merge_type"] = "spatial_unpad",
                ["image_aspect_ratio"] = "anyres", ["image_grid_pinpoints"] = points,
            };
        return LlavaConfig.Parse(document).WithVision(new VisionConfig
        {
            HiddenSize = 16, IntermediateSize = 20, LayerCount = 2, HeadCount = 2, ImageSize = tile, PatchSize = tile / side,
        });
    }
}
