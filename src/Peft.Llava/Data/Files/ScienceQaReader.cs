using System.Text.Json;

namespace Peft.Llava;

/// <summary>Reads a split of ScienceQA as LLaVA conversations.</summary>
internal static class ScienceQaReader
{
    private const string ProblemsForm = "problems.json is ScienceQA's object of problems by id.";
    private const string SplitsForm = "pid_splits.json is ScienceQA's object of lists of ids, by the name of a split.";

    public static IReadOnlyList<LlavaSample> Read(string folder, string split, ScienceQaFormat format, RecordChecks checks)
    {
        string problemsPath = Path.Combine(folder, "problems.json"), splitsPath = Path.Combine(folder, "pid_splits.json");
        using var splits = Open(splitsPath, SplitsForm);
        var ids = Ids(splits.RootElement, split, splitsPath);
        using var problems = Open(problemsPath, ProblemsForm);
        var records = new RecordCollector(problemsPath, checks);
        foreach (string id in ids)
            records.Add(id, null, index => Sample(problems.RootElement, id, index, format, checks));
        return records.Finish();
    }

    private static LlavaSample Sample(JsonElement problems, string id, int index, ScienceQaFormat format, RecordChecks checks)
    {
        if (!problems.TryGetProperty(id, out var record))
            throw new MalformedRecord(RecordProblem.MissingField, "pid_splits.json names it, but problems.json does not have it (take both files of one download)");
        var problem = ScienceQaProblem.Read(record);
        string question = format.QuestionOf(problem);
        var sample = new LlavaSample(index, id, problem.Image is { } image ? [Path.Combine(id, image)] : [],
        [
            new ConversationTurn("human", problem.Image is null ? question : $"{question}\n{LlamaTokenizer.ImagePlaceholder}"),
            new ConversationTurn("gpt", format.AnswerOf(problem)),
        ]);
        RecordCheck.Check(sample, checks);
        return sample;
    }

    private static List<string> Ids(JsonElement splits, string split, string path)
    {
        if (!splits.TryGetProperty(split, out var list))
            throw new DataFileException(path, DataFileFault.WrongFormat,
                $"has no split '{split}'.", $"There are {string.Join(", ", splits.EnumerateObject().Select(p => p.Name))}.");
        if (list.ValueKind != JsonValueKind.Array || list.EnumerateArray().Any(e => e.ValueKind != JsonValueKind.String || JsonFieldReader.TextOrNull(e) is null))
            throw new DataFileException(path, DataFileFault.WrongFormat, $"its split '{split}' is not a list of ids.", SplitsForm);
        return [.. list.EnumerateArray().Select(e => e.GetString()!)];
    }

    private static JsonDocument Open(string path, string form)
    {
        JsonDocument document;
        try
        {
            document = JsonDocument.Parse(File.ReadAllBytes(path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DataFileReader.Unreadable(path, e, form);
        }
        catch (JsonException e)
        {
            throw new DataFileException(path, DataFileFault.WrongFormat, $"is no JSON ({e.Message}).", form, e);
        }
        if (document.RootElement.ValueKind == JsonValueKind.Object) return document;
        document.Dispose();
        throw new DataFileException(path, DataFileFault.WrongFormat, "holds no JSON object.", form);
    }
}
