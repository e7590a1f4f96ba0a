using System.Text;

namespace Peft.Llava;

/// <summary>Writes a <c>tokenizer.model</c> with LLaMA's settings: BPE, byte fallback, a dummy space, no normalisation.</summary>
internal static class SentencePieceWriter
{
    /// <summary>The file's bytes.</summary>
    /// <param name="pieces">The pieces, by id.</param>
    public static byte[] Write(IReadOnlyList<SentencePiece> pieces)
    {
        var file = new List<byte>();
        foreach (var piece in pieces)
        {
            var message = new List<byte>();
            AppendBytes(message, 1, Encoding.UTF8.GetBytes(piece.Text));
            message.Add((2 << 3) | 5);
            message.AddRange(BitConverter.GetBytes(piece.Score));
            AppendNumber(message, 3, (int)piece.Kind);
            AppendBytes(file, 1, message);
        }
        var trainer = new List<byte>();
        AppendNumber(trainer, 3, 2);                         // model_type: BPE
        AppendNumber(trainer, 35, 1);                        // byte_fallback
        AppendBytes(file, 2, trainer);
        var normalizer = new List<byte>();
        AppendBytes(normalizer, 1, Encoding.UTF8.GetBytes("identity"));
        AppendNumber(normalizer, 3, 1);                      // add_dummy_prefix
        AppendNumber(normalizer, 4, 0);                      // remove_extra_whitespaces
        AppendBytes(file, 3, normalizer);
        return [.. file];
    }

    private static void AppendNumber(List<byte> message, int field, int value)
    {
        AppendVariable(message, field << 3);
        AppendVariable(message, value);
    }

    private static void AppendBytes(List<byte> message, int field, IReadOnlyCollection<byte> content)
    {
        AppendVariable(message, (field << 3) | 2);
        AppendVariable(message, content.Count);
        message.AddRange(content);
    }

    private static void AppendVariable(List<byte> message, int value)
    {
        for (uint rest = (uint)value; ; rest >>= 7)
        {
            if (rest < 0x80)
            {
                message.Add((byte)rest);
                return;
            }
            message.Add((byte)(rest | 0x80));
        }
    }
}
