using System.Text;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class TokenizerErrorTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("tokenizer").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_folder_without_a_tokenizer_is_named()
        => Fails(() => LlamaTokenizer.FromFolder(_folder), _folder + ": holds neither tokenizer.model nor tokenizer.json. Name the folder of a checkpoint");

    [Fact]
    public void A_missing_file_is_named()
    {
        Fails(() => LlamaTokenizer.FromSentencePiece(File("none.model")), "none.model: cannot be read (");
        Fails(() => LlamaTokenizer.FromTokenizerJson(File("none.json")), "none.json: cannot be read (");
    }

    [Fact]
    public void A_model_that_is_cut_off_is_refused()
    {
        byte[] whole = System.IO.File.ReadAllBytes(Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", "tiny", "tokenizer.model"));
        Fails(() => Model(whole[..^3]), "is cut off or no SentencePiece model (");
        Fails(() => Model([0x0F]), "is no SentencePiece model (wire type 7).");
        Fails(() => Model([.. Enumerable.Repeat((byte)0xFF, 11)]), "is no SentencePiece model (a number of more than ten bytes).");
        Fails(() => Model([]), "holds no pieces.");
    }

    [Fact]
    public void Other_kinds_of_SentencePiece_models_are_refused_by_name()
    {
        Fails(() => Model(Model(type: 1)), "is a SentencePiece model of type 1, not BPE (2). Use the tokenizer.json");
        Fails(() => Model(Model(removeExtraSpaces: 1)), "normalises its text (a character map or remove_extra_whitespaces)");
        Fails(() => Model(Model(characterMap: "nmt")), "normalises its text (a character map or remove_extra_whitespaces)");
        Fails(() => Model(Model(kind: 5)), "holds unused pieces.");
        Fails(() => Model(Model()), "has 0 byte pieces, not 256. Only models with byte fallback are supported.");
    }

    [Theory]
    [InlineData("{", "is damaged or no tokenizer.json (")]
    [InlineData("""{"added_tokens": [], "model": {"vocab": {"a": 0}, "merges": []}}""", "has another normalizer than LLaMA's")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Split"}, "model": {}}""", "has the pre_tokenizer Split.")]
    [InlineData("""{"added_tokens": [], "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel"}, "model": {}}""",
        "has a normalizer beside the pre_tokenizer ByteLevel.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}, "model": {}}""",
        "has a ByteLevel pre_tokenizer that adds a space.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "split": true}, "model": {}}""", "has a Metaspace that splits.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "split": false, "prepend_scheme": "never"}, "model": {}}""",
        "has a Metaspace with the prepend_scheme never.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "split": false}, "model": {"type": "Unigram"}}""",
        "holds a model of the type Unigram.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "split": false}, "model": {"vocab": {"a": 0}, "merges": ["a b"]}}""",
        "has the merge 'a b', whose parts or result are not in its vocabulary.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "split": false}, "model": {"vocab": {"a": 0}, "merges": ["ab"]}}""",
        "has the merge 'ab', which is no pair.")]
    [InlineData("""{"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "split": false}, "model": {"vocab": {"a": 0}, "merges": []}}""",
        "has no byte piece <0x00>.")]
    [InlineData("""
        {"added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "model": {"vocab": {"a": 0}, "merges": []},
         "post_processor": {"type": "BertProcessing"}}
        """, "has the post_processor BertProcessing.")]
    public void Other_kinds_of_tokenizer_json_are_refused_by_name(string json, string text)
    {
        System.IO.File.WriteAllText(File("tokenizer.json"), json);
        Fails(() => LlamaTokenizer.FromFolder(_folder), "tokenizer.json: " + text);
    }

    [Theory]
    [InlineData("[]", "tokenizer_config.json: is no JSON object (")]
    [InlineData("""{"legacy": "yes"}""", "tokenizer_config.json: holds a value of an unexpected kind (")]
    public void A_damaged_configuration_is_refused(string json, string text)
    {
        System.IO.File.Copy(Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", "tiny", "tokenizer.model"), File("tokenizer.model"));
        System.IO.File.WriteAllText(File("tokenizer_config.json"), json);
        Fails(() => LlamaTokenizer.FromFolder(_folder), text);
    }

    [Fact]
    public void An_id_that_is_no_token_is_named_with_its_place()
    {
        var e = Assert.Throws<TokenIdException>(() => Tiny().Decode([1, 300, -200]));
        Assert.Equal((-200, 2), (e.Id, e.Position));
        Assert.Contains($"Id -200 at position 2 is no token; the tokenizer has ids 0 to {Tiny().Count - 1}.", e.Message);
        e = Assert.Throws<TokenIdException>(() => Tiny().TokenOf(Tiny().Count));
        Assert.Contains("is no token", e.Message);
        Assert.Contains($"Id -1 at position 0 is no token; the tokenizer has ids 0 to {Tiny().Count - 1}.", Assert.Throws<TokenIdException>(() => Tiny().TokenOf(-1)).Message);
    }

    [Fact]
    public void Half_a_surrogate_pair_is_refused_with_its_place()
    {
        var e = Assert.Throws<InvalidTextException>(() => Tiny().Encode("ab\ud83d cd"));
        Assert.Equal(2, e.Position);
        Assert.Contains("The text holds a lone surrogate U+D83D at position 2 (of 6).", e.Message);
    }

    [Fact]
    public void LLaVAs_count_of_several_rounds_needs_to_know_whether_the_tokenizer_is_legacy()
    {
        var builder = new LabelBuilder(Tiny(TokenizerBehavior.Fast), Templates.Default, LabelMode.LlavaExact);
        ConversationTurn[] turns = [new("human", "a"), new("gpt", "b"), new("human", "c"), new("gpt", "d")];
        var e = Assert.Throws<ConversationException>(() => builder.Build(turns, hasImage: false));
        Assert.Contains("need a tokenizer that is legacy or not, which this one does not say. Load tokenizer.model, or label by spans", e.Message);
    }

    private static LlamaTokenizer Tiny(TokenizerBehavior? behavior = null)
        => LlamaTokenizer.FromFolder(Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", "tiny"), new() { Behavior = behavior });

    private string File(string name) => Path.Combine(_folder, name);

    private LlamaTokenizer Model(byte[] bytes)
    {
        System.IO.File.WriteAllBytes(File("tokenizer.model"), bytes);
        return LlamaTokenizer.FromSentencePiece(File("tokenizer.model"));
    }

    /// <summary>A model of one piece, "a".</summary>
    private static byte[] Model(byte type = 2, byte removeExtraSpaces = 0, string characterMap = "", byte kind = 1)
    {
        byte[] map = Encoding.UTF8.GetBytes(characterMap);
        return
        [
            0x0A, 5, 0x0A, 1, (byte)'a', 0x18, kind,
            0x12, 2, 0x18, type,
            0x1A, (byte)(4 + map.Length), 0x12, (byte)map.Length, .. map, 0x20, removeExtraSpaces,
        ];
    }

    private static void Fails(Action action, string text) => Assert.Contains(text, Assert.Throws<TokenizerFileException>(action).Message);
}
