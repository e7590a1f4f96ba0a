namespace Peft.Llava;

/// <summary>A LLaMA tokenizer made of pieces written here: bytes, printable ASCII and a few words. No file is read.</summary>
internal static class TinyTokenizer
{
    private const int ByteCount = 256;

    private static readonly string[] Words =
    [
        "USER", "ASSISTANT", "What", "Which", "Name", "is", "in", "it", "this", "the", "a", "picture", "image", "color", "of", "and", "red", "green",
        "blue", "yellow", "apple", "ball", "cat", "dog", "house", "tree", "yes", "no", "one", "two",
    ];

    /// <summary>Makes the tokenizer: behaviour of LLaVA 1.5's (SentencePiece, not legacy), BOS first, padding with the unknown token.</summary>
    public static LlamaTokenizer Create(int maxLength)
    {
        var pieces = Pieces();
        var merges = MergeTables.FromPieces(pieces, MergeOrder.Score, out var characters);
        var model = new BpeModel([.. pieces.Select(p => p.Text)], characters, merges) { ByteIds = [.. Enumerable.Range(3, ByteCount)] };
        return new LlamaTokenizer(new TokenizerData
        {
            Model = model,
            Pieces = pieces,
            Behavior = TokenizerBehavior.SentencePiece,
            Added = [new AddedToken("<unk>", 0, true), new AddedToken("<s>", 1, true), new AddedToken("</s>", 2, true)],
            Roles = new Dictionary<string, string>
            {
                ["unk_token"] = "<unk>", ["bos_token"] = "<s>", ["eos_token"] = "</s>", ["pad_token"] = "<unk>",
            },
            AddBos = true,
            AddEos = false,
            AddsPrefixSpace = true,
            ModelMaxLength = maxLength,
        });
    }

    private static List<SentencePiece> Pieces()
    {
        var pieces = new List<SentencePiece>
        {
            new("<unk>", 0, SentencePieceKind.Unknown), new("<s>", 0, SentencePieceKind.Control), new("</s>", 0, SentencePieceKind.Control),
        };
        for (int value = 0; value < ByteCount; value++) pieces.Add(new SentencePiece($"<0x{value:X2}>", 0, SentencePieceKind.Byte));
        var texts = new List<string> { BpeModel.SpaceMark.ToString() };
        for (char c = '!'; c <= '~'; c++) texts.Add(c.ToString());
        // A word is joined from its left end: every beginning of it is a piece.
        foreach (string word in Words)
            for (int length = 1; length <= word.Length; length++) texts.Add(BpeModel.SpaceMark + word[..length]);
        int rank = 0;
        foreach (string text in texts.Distinct()) pieces.Add(new SentencePiece(text, -rank++, SentencePieceKind.Normal));
        return pieces;
    }
}
