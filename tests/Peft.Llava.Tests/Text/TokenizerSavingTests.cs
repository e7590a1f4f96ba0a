using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class TokenizerSavingTests : IDisposable
{
    private const string Sample = " <im_start>The cat\n\u732b<im_end>  is[PAD]</s>";
    private readonly string _folder = Directory.CreateTempSubdirectory("tokenizer").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("tiny")]
    [InlineData("tiny-fast-old")]
    [InlineData("tiny-fast-new")]
    [InlineData("bytes")]
    public void A_saved_tokenizer_reads_back_the_same(string name)
    {
        var before = LlamaTokenizer.FromFolder(Source(name)).WithAddedTokens(["<im_start>", "<im_end>"]).WithPadToken("[PAD]").WithModelMaxLength(77);
        before.Save(_folder);
        var after = LlamaTokenizer.FromFolder(_folder);
        Assert.Equal(before.AddedTokens, after.AddedTokens);
        Assert.Equal((before.BosId, before.EosId, before.UnknownId, before.PadId), (after.BosId, after.EosId, after.UnknownId, after.PadId));
        Assert.Equal((before.Count, before.Behavior, before.ModelMaxLength, before.AddsBos), (after.Count, after.Behavior, after.ModelMaxLength, after.AddsBos));
        Assert.Equal(before.Encode(Sample), after.Encode(Sample));
        Assert.Equal(before.Decode(before.Encode(Sample)), after.Decode(after.Encode(Sample)));
        after.Save(_folder);                                  // over itself
        Assert.Equal(before.Encode(Sample), LlamaTokenizer.FromFolder(_folder).Encode(Sample));
    }

    [Fact]
    public void A_tokenizer_made_in_memory_is_saved_too()
    {
        using var tiny = TinyLlava.Create();
        tiny.Tokenizer.Save(_folder);
        var after = LlamaTokenizer.FromFolder(_folder);
        Assert.Equal(tiny.Tokenizer.Encode(Sample), after.Encode(Sample));
        Assert.Equal((tiny.Tokenizer.Count, tiny.Tokenizer.PadId, tiny.Tokenizer.Behavior), (after.Count, after.PadId, after.Behavior));
    }

    [Fact]
    public void What_the_configuration_held_besides_is_kept()
    {
        File.Copy(Path.Combine(Source("tiny"), "tokenizer.model"), Path.Combine(_folder, "tokenizer.model"));
        File.WriteAllText(Path.Combine(_folder, "tokenizer_config.json"), """{"legacy": true, "chat_template": "x", "sp_model_kwargs": {"a": 1}}""");
        var tokenizer = LlamaTokenizer.FromFolder(_folder);
        Assert.Equal(TokenizerBehavior.SentencePieceLegacy, tokenizer.Behavior);
        tokenizer.Save(_folder);
        using var json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(_folder, "tokenizer_config.json")));
        Assert.Equal("x", json.RootElement.GetProperty("chat_template").GetString());
        Assert.Equal(1, json.RootElement.GetProperty("sp_model_kwargs").GetProperty("a").GetInt32());
        Assert.True(json.RootElement.GetProperty("legacy").GetBoolean());
    }

    [Fact]
    public void Refuses_where_the_model_file_is_gone()
    {
        string model = Path.Combine(_folder, "tokenizer.model");
        File.Copy(Path.Combine(Source("tiny"), "tokenizer.model"), model);
        var tokenizer = LlamaTokenizer.FromFolder(_folder);
        File.Delete(model);
        var e = Assert.Throws<TokenizerFileException>(() => tokenizer.Save(Path.Combine(_folder, "out")));
        Assert.Contains("tokenizer.model: is no longer there, but the tokenizer was read from it. Put it back", e.Message);
    }

    private static string Source(string name) => Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", name);
}
