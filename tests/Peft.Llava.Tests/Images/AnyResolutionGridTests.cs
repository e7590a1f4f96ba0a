using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class AnyResolutionGridTests
{
    public static IEnumerable<TheoryDataRow<string>> Rules => Goldens.Rows("images", c => c.Kind == "rules");

    [Theory, MemberData(nameof(Rules)), Trait(Goldens.Trait, "images")]
    public void Integer_rules(string folder)
    {
        var golden = new GoldenCase(folder);
        using var tables = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("tables").GetString()!)));
        var grids = golden.Json.GetProperty("grids").EnumerateArray().Select(g => g.EnumerateArray().Select(Size).ToList()).ToList();
        foreach (var table in tables.RootElement.EnumerateObject())
        {
            foreach (var row in table.Value.EnumerateArray())
            {
                string expected = Text(row[row.GetArrayLength() - 1]);
                string got = Apply(table.Name, row, grids);
                Assert.True(expected == got, $"{table.Name} {row.GetRawText()}: expected {expected}, got {got}.");
            }
        }
    }

    private static string Apply(string rule, JsonElement row, List<List<ImageSize>> grids)
    {
        try
        {
            switch (rule)
            {
                case "select_best_resolution":
                    return Text(AnyResolutionGrid.SelectBestResolution(Size(row[0]), grids[row[1].GetInt32()]));
                case "grid_shape":
                    var (columns, rows) = AnyResolutionGrid.GridShape(Size(row[0]), grids[row[1].GetInt32()], row[2].GetInt32());
                    return $"[{columns},{rows}]";
                case "shortest_edge":
                    return Text(AnyResolutionGrid.ShortestEdge(Size(row[0]), row[1].GetInt32()));
                case "resize_and_pad":
                    if (row[2].ValueKind == JsonValueKind.Null) return "null";       // nothing visible was recorded
                    var fit = AnyResolutionGrid.ResizeAndPad(Size(row[0]), Size(row[1]));
                    return $"[{fit.X},{fit.Y},{fit.Picture.Width},{fit.Picture.Height}]";
                case "expand2square":
                    var square = AnyResolutionGrid.ExpandToSquare(Size(row[0]));
                    return $"[{square.Canvas.Width},{square.X},{square.Y}]";
                case "pinpoints_text":
                    var shape = AnyResolutionGrid.GridShape(new ImageSize(800, 500), GridPinpoints.Parse(row[0].GetString()!), 56);
                    return $"[{shape.Columns},{shape.Rows}]";
                default:
                    throw new InvalidOperationException($"The test does not know the table '{rule}'.");
            }
        }
        catch (GridPinpointsException)
        {
            return "null";
        }
    }

    private static ImageSize Size(JsonElement pair) => new(pair[0].GetInt32(), pair[1].GetInt32());

    private static string Text(ImageSize size) => $"[{size.Width},{size.Height}]";

    /// <summary>The expected value as compact JSON; a recorded exception counts as null.</summary>
    private static string Text(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => value.TryGetProperty("ok", out var ok) ? Text(ok) : "null",
        JsonValueKind.Array => "[" + string.Join(",", value.EnumerateArray().Select(v => v.GetRawText())) + "]",
        _ => value.GetRawText(),
    };

    [Fact]
    public void No_pinpoint_is_refused()
    {
        var error = Assert.Throws<GridPinpointsException>(() => AnyResolutionGrid.SelectBestResolution(new ImageSize(3, 5), []));
        Assert.StartsWith("image_grid_pinpoints '[]' cannot be used: it names no resolution. Write every resolution out", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("(1x1),...,(2x2)", "it has '1x1' where a number was expected (at character 4)")]
    [InlineData("[(56,112),(112,56)", "it ends before its ']' (at character 18)")]
    [InlineData("", "it is empty (at character 0)")]
    [InlineData("[(56 112)]", "it has something else than a comma between two entries (at character 5)")]
    [InlineData("[56, 112)]", "it has a ')' that closes nothing (at character 8)")]
    [InlineData("[{56}]", "it has '{' where a number was expected (at character 1)")]
    [InlineData("[[[[[[[[[[5]]]]]]]]]]", "it nests too deep (at character 9)")]
    [InlineData("56", "it is one number")]
    [InlineData("(56, 112)", "entry 0 is no pair of whole numbers")]
    [InlineData("[(56, 112), (0, 56)]", "entry 1 is 0x56")]
    [InlineData("[]", "it names no resolution")]
    public void Text_that_is_no_list_of_pairs_is_refused(string text, string reason)
    {
        var error = Assert.Throws<GridPinpointsException>(() => GridPinpoints.Parse(text));
        Assert.Equal(reason, error.Reason);
        Assert.Contains($"image_grid_pinpoints '{text}' cannot be used: {reason}. Write every resolution out", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Text_may_be_a_list_or_a_tuple_of_either()
    {
        ImageSize[] expected = [new(56, 112), new(112, 57)];
        Assert.Equal(expected, GridPinpoints.Parse("[(56, 112), (112, 57)]"));
        Assert.Equal(expected, GridPinpoints.Parse("([56,112],\n [112,57],)"));
        Assert.Equal(expected, GridPinpoints.Parse(" (56,112),(112,57)"));
        Assert.Equal([new ImageSize(5, 7)], GridPinpoints.Parse("((5,7),)"));
    }

    [Fact]
    public void A_remainder_of_the_canvas_makes_one_more_tile_but_no_grid_cell()
    {
        Assert.Equal((3, 2), AnyResolutionGrid.TileCounts(new ImageSize(130, 100), 56));
        Assert.Equal((2, 1), AnyResolutionGrid.GridShape(new ImageSize(300, 217), [new(130, 100)], 56));
    }

    [Fact]
    public void A_long_side_beyond_all_bounds_is_refused()
    {
        var error = Assert.Throws<ImageShapeException>(() => AnyResolutionGrid.ShortestEdge(new ImageSize(1, 20_000_000), 336));
        Assert.Equal("Processing this picture needs an intermediate picture of 6720000000x336, which is too large. "
            + "Crop or shrink the file first; a picture so long and thin holds nothing the vision tower could see.", error.Message);
    }
}
