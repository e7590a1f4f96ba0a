using System.Buffers.Binary;
using System.Text;

namespace Peft.Llava;

/// <summary>What a piece of a SentencePiece model is for (the numbers of its file format).</summary>
internal enum SentencePieceKind
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// <summary>One piece of a SentencePiece model.</summary>
internal readonly record struct SentencePiece(string Text, float Score, SentencePieceKind Kind);

/// <summary>
/// Reads <c>tokenizer.model</c>: the few fields of SentencePiece's protobuf message that a LLaMA tokenizer needs. What would give other ids
/// than ours is refused by name.
/// </summary>
internal sealed class SentencePieceFile
{
    private const string FormatStep = "Copy tokenizer.model again from the checkpoint it belongs to.";
    private readonly string _path;

    private SentencePieceFile(string path) => _path = path;

    /// <summary>The pieces, by id.</summary>
    public List<SentencePiece> Pieces { get; } = [];

    /// <summary>Whether a dummy space goes before a text.</summary>
    public bool AddsDummySpace { get; private set; } = true;

    private bool RemovesExtraSpaces { get; set; } = true;

    private int ModelType { get; set; } = 1;

    private bool HasNormalization { get; set; }

    /// <summary>Reads a file.</summary>
    /// <exception cref="TokenizerFileException">The file is damaged, or another kind of model.</exception>
    public static SentencePieceFile Read(string path)
    {
        byte[] bytes;
        try
        {
            bytes = File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TokenizerFileException(path, $"cannot be read ({e.Message}).", "Check the path and its permissions.", e);
        }
        var file = new SentencePieceFile(path);
        file.ReadFields(bytes, file.ReadModelField);
        file.Check();
        return file;
    }

    private void Check()
    {
        if (Pieces.Count == 0) throw Fail("holds no pieces.", "A Git LFS pointer or another kind of file? " + FormatStep);
        if (ModelType != 2) throw Fail($"is a SentencePiece model of type {ModelType}, not BPE (2).", "Use the tokenizer.json of the checkpoint.");
        if (HasNormalization || RemovesExtraSpaces)
        {
            throw Fail("normalises its text (a character map or remove_extra_whitespaces), as LLaMA tokenizers don't.",
                "Use the tokenizer.json of the checkpoint.");
        }
        if (Pieces.Exists(p => p.Kind == SentencePieceKind.Unused)) throw Fail("holds unused pieces.", "Use the tokenizer.json of the checkpoint.");
        int bytePieces = Pieces.Count(p => p.Kind == SentencePieceKind.Byte);
        if (bytePieces != 256) throw Fail($"has {bytePieces} byte pieces, not 256.", "Only models with byte fallback are supported.");
    }

    private void ReadModelField(int field, ulong number, ReadOnlySpan<byte> bytes)
    {
        switch (field)
        {
            case 1: Pieces.Add(ReadPiece(bytes)); break;
            case 2: ReadFields(bytes, (f, n, _) => { if (f == 3) ModelType = (int)n; }); break;
            case 3: ReadFields(bytes, ReadNormalizerField); break;
        }
    }

    private void ReadNormalizerField(int field, ulong number, ReadOnlySpan<byte> bytes)
    {
        switch (field)
        {
            case 2: HasNormalization |= bytes.Length > 0; break;
            case 3: AddsDummySpace = number != 0; break;
            case 4: RemovesExtraSpaces = number != 0; break;
        }
    }

    private SentencePiece ReadPiece(ReadOnlySpan<byte> bytes)
    {
        string text = "";
        float score = 0;
        var kind = SentencePieceKind.Normal;
        ReadFields(bytes, (field, number, content) =>
        {
            if (field == 1) text = Encoding.UTF8.GetString(content);
            else if (field == 2) score = BitConverter.Int32BitsToSingle((int)number);
            else if (field == 3) kind = (SentencePieceKind)number;
        });
        return new SentencePiece(text, score, kind);
    }

    private delegate void FieldReceiver(int field, ulong number, ReadOnlySpan<byte> bytes);

    private void ReadFields(ReadOnlySpan<byte> data, FieldReceiver receive)
    {
        while (data.Length > 0)
        {
            ulong tag = ReadNumber(ref data);
            int field = (int)(tag >> 3);
            switch (tag & 7)
            {
                case 0: receive(field, ReadNumber(ref data), default); break;
                case 1: Take(ref data, 8); break;
                case 2: receive(field, 0, Take(ref data, ReadNumber(ref data))); break;
                case 5: receive(field, BinaryPrimitives.ReadUInt32LittleEndian(Take(ref data, 4)), default); break;
                default: throw Fail($"is no SentencePiece model (wire type {tag & 7}).", FormatStep);
            }
        }
    }

    private ReadOnlySpan<byte> Take(ref ReadOnlySpan<byte> data, ulong length)
    {
        if (length > (ulong)data.Length) throw Fail($"is cut off or no SentencePiece model ({length} bytes wanted, {data.Length} left).", FormatStep);
        var taken = data[..(int)length];
        data = data[(int)length..];
        return taken;
    }

    private ulong ReadNumber(ref ReadOnlySpan<byte> data)
    {
        ulong value = 0;
        for (int shift = 0; shift < 64; shift += 7)
        {
            byte b = Take(ref data, 1)[0];
            value |= (ulong)(b & 0x7F) << shift;
            if (b < 0x80) return value;
        }
        throw Fail("is no SentencePiece model (a number of more than ten bytes).", FormatStep);
    }

    private TokenizerFileException Fail(string reason, string next) => new(_path, reason, next);
}
