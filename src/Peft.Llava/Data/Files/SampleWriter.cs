using System.Text.Encodings.Web;
using System.Text.Json;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Writes samples as the files that LLaVA and <see cref="LlavaDataset"/> read. A file appears whole or not at all; characters stand as they are, in
/// UTF-8.
/// </summary>
public static class SampleWriter
{
    private static readonly JsonWriterOptions Lines = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
    private static readonly JsonWriterOptions Indented = Lines with { Indented = true };

    /// <summary>Writes LLaVA's JSON: an array of records with <c>id</c>, <c>image</c> (a file, a list of files, or absent) and <c>conversations</c>.</summary>
    /// <param name="path">The file.</param>
    /// <param name="samples">The samples.</param>
    /// <exception cref="SampleException">A text holds half of a surrogate pair, which no file in UTF-8 can hold; nothing was written.</exception>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void WriteJson(string path, IReadOnlyList<LlavaSample> samples)
    {
        Check(path, samples);
        AtomicFile.WriteStream(path, stream =>
        {
            using var writer = new Utf8JsonWriter(stream, Indented);
            writer.WriteStartArray();
            foreach (var sample in samples) Write(writer, sample);
            writer.WriteEndArray();
        });
    }

    /// <summary>Writes JSON Lines: a record of the same form per line.</summary>
    /// <inheritdoc cref="WriteJson"/>
    public static void WriteJsonLines(string path, IReadOnlyList<LlavaSample> samples)
    {
        Check(path, samples);
        AtomicFile.WriteStream(path, stream =>
        {
            foreach (var sample in samples)
            {
                using (var writer = new Utf8JsonWriter(stream, Lines)) Write(writer, sample);
                stream.WriteByte((byte)'\n');
            }
        });
    }

    private static void Check(string path, IReadOnlyList<LlavaSample> samples)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(samples);
        foreach (var sample in samples)
        {
            if (!IsWhole(sample.Id) || !sample.Images.All(IsWhole) || !sample.Turns.All(t => IsWhole(t.From) && IsWhole(t.Value)))
                throw new SampleException(SampleProblem.Conversation, sample, "holds half of a surrogate pair.", "Correct the text; it was cut within a character.");
        }
    }

    private static bool IsWhole(string text)
    {
        for (int i = 0; i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i])) continue;
            if (!char.IsHighSurrogate(text[i]) || i + 1 == text.Length || !char.IsLowSurrogate(text[i + 1])) return false;
            i++;
        }
        return true;
    }

    private static void Write(Utf8JsonWriter writer, LlavaSample sample)
    {
        writer.WriteStartObject();
        writer.WriteString("id", sample.Id);
        if (sample.Images.Count == 1) writer.WriteString("image", sample.Images[0]);
        if (sample.Images.Count > 1)
        {
            writer.WriteStartArray("image");
            foreach (string image in sample.Images) writer.WriteStringValue(image);
            writer.WriteEndArray();
        }
        writer.WriteStartArray("conversations");
        foreach (var turn in sample.Turns)
        {
            writer.WriteStartObject();
            writer.WriteString("from", turn.From);
            writer.WriteString("value", turn.Value);
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteEndObject();
    }
}
