using System.Text.Json.Nodes;
using Xunit;

namespace Peft.Core.Tests.Config;

/// <summary>Numbers as Python writes and types them: a reader that wants a float refuses <c>6</c>.</summary>
public sealed class PythonJsonTests
{
    [Theory, Trait("Fault", "files-1")]
    [InlineData(7000.0, "7000.0")]
    [InlineData(0.0, "0.0")]
    [InlineData(-0.0, "-0.0")]
    [InlineData(3e-5, "3e-05")]
    [InlineData(0.0001, "0.0001")]
    [InlineData(1e15, "1000000000000000.0")]
    [InlineData(1234567890123456.0, "1234567890123456.0")]
    [InlineData(1e16, "1e+16")]
    [InlineData(-12500000000000000.0, "-1.25e+16")]
    [InlineData(1.5e300, "1.5e+300")]
    public void A_float_of_a_document_built_in_code_stays_one(double value, string expected)
    {
        var document = new JsonObject { ["number"] = value, ["list"] = new JsonArray(value) };
        Assert.Equal($"{{\n  \"list\": [\n    {expected}\n  ],\n  \"number\": {expected}\n}}", PythonJson.Write(document));
        Assert.Equal(expected, PythonJson.Write(PythonJson.Float(value)));
    }

    [Theory, Trait("Fault", "files-1")]
    [InlineData(6f, "6.0")]
    [InlineData(4.2f, "4.2")]
    [InlineData(1e-7f, "1e-07")]
    public void A_single_has_its_own_shortest_text(float value, string expected)
    {
        Assert.Equal(expected, PythonJson.Write(PythonJson.Single(value)));
        Assert.Equal(expected, PythonJson.Write(JsonValue.Create(value)));
    }

    [Fact]
    public void Whole_numbers_and_numbers_that_were_read_keep_their_form()
    {
        Assert.Equal("7", PythonJson.Write(JsonValue.Create(7)));
        Assert.Equal("70000000000", PythonJson.Write(JsonValue.Create(70000000000L)));
        Assert.Equal("[\n  6.0,\n  6,\n  0.10,\n  1E5\n]", PythonJson.Write(JsonNode.Parse("[6.0, 6, 0.10, 1E5]")));
    }
}
