using System.Text;
using System.Text.Json;

namespace Peft.Llava;

/// <summary>Reads LLaVA's data files record by record, collecting what is malformed.</summary>
internal static class DataFileReader
{
    private const string ArrayForm = "A data file is a JSON array of records with id, image (optional) and conversations.";
    private const string LinesForm = "A JSON Lines file has one record a line, in UTF-8, with id, image (optional) and conversations.";

    /// <summary>A JSON array.</summary>
    public static IReadOnlyList<LlavaSample> ReadJson(string path, RecordChecks checks)
    {
        var records = new RecordCollector(path, checks);
        try
        {
            using var stream = File.OpenRead(path);
            foreach (var record in JsonSerializer.DeserializeAsyncEnumerable<JsonElement>(stream).ToBlockingEnumerable())
                records.Add(LlavaRecord.IdOf(record), null, index => LlavaRecord.Read(record, index, checks));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unreadable(path, e, ArrayForm);
        }
        catch (JsonException e)
        {
            throw NoArray(path, records.Count, e);
        }
        return records.Finish();
    }

    /// <summary>A record per line; empty lines are passed over.</summary>
    public static IReadOnlyList<LlavaSample> ReadJsonLines(string path, RecordChecks checks)
    {
        var records = new RecordCollector(path, checks);
        int number = 0;
        try
        {
            foreach (string line in File.ReadLines(path, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true)))
            {
                number++;
                if (!string.IsNullOrWhiteSpace(line)) ReadLine(line, number, records, checks);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unreadable(path, e, LinesForm);
        }
        catch (DecoderFallbackException e)
        {
            throw new DataFileException(path, DataFileFault.WrongFormat, $"is not in UTF-8, after line {number}.", LinesForm, e);
        }
        return records.Finish();
    }

    private static void ReadLine(string line, int number, RecordCollector records, RecordChecks checks)
    {
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(line);
        }
        catch (JsonException e)
        {
            records.Add(null, number, _ => throw new MalformedRecord(RecordProblem.NotJson, $"the line is no whole JSON record ({e.Message})"));
            return;
        }
        using (document) records.Add(LlavaRecord.IdOf(document.RootElement), number, index => LlavaRecord.Read(document.RootElement, index, checks));
    }

    /// <summary>A file that cannot be opened or read.</summary>
    public static DataFileException Unreadable(string path, Exception cause, string form)
        => new(path, DataFileFault.Unreadable, $"cannot be read ({cause.Message}).", form, cause);

    private static DataFileException NoArray(string path, int whole, JsonException cause)
    {
        if (EdgeCharacter(path, last: true) is null) return new DataFileException(path, DataFileFault.CutOff, "is empty.", ArrayForm, cause);
        bool cut = EdgeCharacter(path, last: false) == '[' && EdgeCharacter(path, last: true) != ']';
        return cut
            ? new DataFileException(path, DataFileFault.CutOff,
                $"ends in the middle of its list; the first {whole} record(s) are whole ({cause.Message}).", "Copy or write the file again.", cause)
            : new DataFileException(path, DataFileFault.WrongFormat, $"is no JSON array ({cause.Message}).", ArrayForm, cause);
    }

    /// <summary>The first or last byte that is no blank; null where the 4096 at that end are all blank.</summary>
    private static char? EdgeCharacter(string path, bool last)
    {
        using var stream = File.OpenRead(path);
        int length = (int)Math.Min(4096, stream.Length);
        stream.Position = last ? stream.Length - length : 0;
        byte[] bytes = new byte[length];
        stream.ReadExactly(bytes);
        if (last) Array.Reverse(bytes);
        foreach (byte b in bytes)
            if (b is not ((byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n' or 0xef or 0xbb or 0xbf)) return (char)b;
        return null;
    }
}
