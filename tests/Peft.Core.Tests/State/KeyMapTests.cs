using Xunit;

namespace Peft.Core.Tests;

public sealed class KeyMapTests
{
    private static readonly KeyMap Map = new(
        ("decoder.layers.{}.attention.query.weight", "model.layers.{}.self_attn.q_proj.weight"),
        ("decoder.{}.expert.{}.up", "h.{}.e{}.w1"),
        ("projector.0.weight", "model.mm_projector.0.weight"),
        ("decoder.layers.0.special", "special"));

    [Theory]
    [InlineData("decoder.layers.31.attention.query.weight", "model.layers.31.self_attn.q_proj.weight")]
    [InlineData("decoder.2.expert.17.up", "h.2.e17.w1")]
    [InlineData("projector.0.weight", "model.mm_projector.0.weight")]
    [InlineData("decoder.layers.0.special", "special")]
    public void Names_are_read_both_ways(string ours, string theirs)
    {
        Assert.Equal(theirs, Map.ToTheirs(ours));
        Assert.Equal(ours, Map.ToOurs(theirs));
    }

    [Theory]
    [InlineData("model.layers..self_attn.q_proj.weight")]
    [InlineData("model.layers.x.self_attn.q_proj.weight")]
    [InlineData("model.layers.1.self_attn.q_proj.weights")]
    [InlineData("a.model.layers.1.self_attn.q_proj.weight")]
    [InlineData("model.layers.{}.self_attn.q_proj.weight")]
    [InlineData("model.layers.1")]
    [InlineData("")]
    public void What_is_not_in_the_table_is_null(string theirs) => Assert.Null(Map.ToOurs(theirs));

    [Fact]
    public void A_table_that_cannot_be_read_both_ways_is_refused()
    {
        var holes = Assert.Throws<ArgumentException>(() => new KeyMap(("a.{}", "b")));
        Assert.StartsWith("'a.{}' has 1 {} and 'b' 0; a row needs as many on both sides.", holes.Message);
        var twice = Assert.Throws<ArgumentException>(() => new KeyMap(("a", "x"), ("b", "x")));
        Assert.StartsWith("'x' stands in two rows; a table that is read both ways can have it once.", twice.Message);
        Assert.StartsWith("'a' stands in two rows;", Assert.Throws<ArgumentException>(() => new KeyMap(("a", "x"), ("a", "y"))).Message);
    }
}
