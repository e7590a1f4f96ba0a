using System.Text.Json;
using System.Text.Json.Nodes;
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

    /// <summary>What transformers' slow tokenizer wrote after <c>add_tokens</c> and <c>add_special_tokens</c>.</summary>
    [Theory, Trait(Goldens.Trait, "export")]
    [InlineData("gqa")]
    [InlineData("tied")]
    public void Added_tokens_are_written_as_transformers_does(string spec)
    {
        string export = Path.Combine(Goldens.Roots[0], "export"), recorded = Path.Combine(export, spec + "-hf4", "expected");
        LlamaTokenizer.FromFolder(Path.Combine(export, "_sources", spec, "llava-base")).WithAddedTokens(["<image>"]).WithPadToken("<pad>").Save(_folder);
        foreach (string name in new[] { "added_tokens.json", "special_tokens_map.json" })
            Assert.Equal(File.ReadAllText(Path.Combine(recorded, name)), File.ReadAllText(Path.Combine(_folder, name)));
        var expected = JsonNode.Parse(File.ReadAllText(Path.Combine(recorded, "tokenizer_config.json")))!.AsObject();
        expected.Remove("processor_class");                   // the processor's, which saved it there
        expected.Remove("use_fast");                          // an argument of the script that loaded it
        Assert.Equal(expected.ToJsonString(), JsonNode.Parse(File.ReadAllText(Path.Combine(_folder, "tokenizer_config.json")))!.ToJsonString());
    }

    [Fact]
    public void What_is_not_special_is_normalised_and_what_the_files_say_of_a_token_stays()
    {
        foreach (string name in new[] { "tokenizer.json", "tokenizer_config.json" }) File.Copy(Path.Combine(Source("tiny-fast-new"), name), Path.Combine(_folder, name));
        string path = Path.Combine(_folder, "tokenizer.json");
        var json = JsonNode.Parse(File.ReadAllText(path))!;
        json["added_tokens"]![0]!["normalized"] = true;
        File.WriteAllText(path, json.ToJsonString());
        File.Copy(Path.Combine(Source("tiny"), "tokenizer.model"), Path.Combine(_folder, "tokenizer.model"));
        var tokenizer = LlamaTokenizer.FromFolder(_folder).WithAddedTokens(["<plain>"], special: false).WithAddedTokens(["<special>"]);
        string target = Path.Combine(_folder, "out");
        tokenizer.Save(target);
        var written = JsonNode.Parse(File.ReadAllText(Path.Combine(target, "tokenizer.json")))!["added_tokens"]!.AsArray();
        Assert.Equal(tokenizer.AddedTokens.Select(t => (t.Id, t.Content)), written.Select(t => ((int)t!["id"]!, (string)t!["content"]!)));
        Assert.Equal([true, true, false], new[] { written[0], written[^2], written[^1] }.Select(t => (bool)t!["normalized"]!));
        Assert.Equal(tokenizer.AddedTokens.Select(t => t with { IsNormalized = t.Id == 0 || t.IsNormalized }),
            LlamaTokenizer.FromFolder(target, new TokenizerOptions { PreferJson = true }).AddedTokens);
        Assert.Equal(tokenizer.AddedTokens, LlamaTokenizer.FromFolder(target).AddedTokens);
    }

    /// <summary>transformers' own file of the same model is the form; byte level and files that have one already are left alone.</summary>
    [Fact, Trait("Fault", "files-8"), Trait(Goldens.Trait, "text")]
    public void The_fast_tokenizers_file_of_a_model_file_is_that_of_transformers()
    {
        var hf = LlavaConfig.Load(Path.Combine(Repository.Root, "tests", "goldens", "training", "common", "base-hf"));
        using var images = new TemporaryFolder();
        new LlavaProcessor(LlamaTokenizer.FromFolder(Source("tiny"))).Save(images.Path, hf);
        var expected = JsonNode.Parse(File.ReadAllText(Path.Combine(Source("tiny-fast-old"), "tokenizer.json")))!;
        var written = JsonNode.Parse(File.ReadAllText(images.File("tokenizer.json")))!;
        Assert.Equal(expected.AsObject().Select(f => f.Key), written.AsObject().Select(f => f.Key));
        foreach (var (field, value) in expected.AsObject()) Assert.True(JsonNode.DeepEquals(value, written[field]), field);
        Assert.Equal(expected["model"]!.AsObject().Select(f => f.Key), written["model"]!.AsObject().Select(f => f.Key));

        // The same for the vocabulary of LLaMA itself.
        string llama = Path.Combine(Goldens.Roots[0], "llama-tokenizer");
        new LlavaProcessor(LlamaTokenizer.FromFolder(llama)).Save(images.Path, hf);
        var recorded = JsonNode.Parse(File.ReadAllText(Path.Combine(Source("llama-fast-old"), "tokenizer.json")))!["model"]!;
        Assert.True(JsonNode.DeepEquals(recorded, JsonNode.Parse(File.ReadAllText(images.File("tokenizer.json")))!["model"]));

        // With tokens of its own; a folder in LLaVA's layout gets none.
        var added = LlamaTokenizer.FromFolder(Source("tiny")).WithAddedTokens(["<image>"]).WithAddedTokens(["<plain>"], special: false).WithAddBos(false);
        new LlavaProcessor(added).Save(images.Path, hf);
        var json = LlamaTokenizer.FromFolder(images.Path, new TokenizerOptions { PreferJson = true });
        Assert.Equal(TokenizerBehavior.Fast, json.Behavior);
        Assert.Equal(LlamaTokenizer.FromFolder(images.Path, new TokenizerOptions { Behavior = TokenizerBehavior.Fast }).Encode("Sample <plain> text<image> of a </s>dog"),
            json.Encode("Sample <plain> text<image> of a </s>dog"));
        Assert.Equal(added.Count, json.Count);
        added.Save(_folder);
        Assert.False(File.Exists(Path.Combine(_folder, "tokenizer.json")));
    }

    [Fact]
    public void Another_tokenizers_added_tokens_do_not_stay()
    {
        File.WriteAllText(Path.Combine(_folder, "added_tokens.json"), """{"<gone>": 9000}""");
        var tokenizer = LlamaTokenizer.FromFolder(Source("tiny"));
        tokenizer.Save(_folder);
        Assert.Equal(tokenizer.Count, LlamaTokenizer.FromFolder(_folder).Count);
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
