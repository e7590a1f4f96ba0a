using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class LinesDataTests
{
    public static IEnumerable<TheoryDataRow<string>> Runs => Goldens.Rows("training", c => c.Json.TryGetProperty("argv", out _)).Take(1);

    [Theory, Trait(Goldens.Trait, "training"), MemberData(nameof(Runs))]
    public void A_data_path_that_ends_in_jsonl_is_read_line_by_line(string folder)
    {
        string output = Directory.CreateTempSubdirectory("peft-lines-").FullName;
        try
        {
            var arguments = new GoldenRun(folder, output).Arguments;
            using var tiny = TinyLlava.Create();
            var expected = LlavaRecipe.PrepareData(arguments, tiny.Model).Dataset.Samples;
            string lines = Path.Combine(output, "data.JSONL");
            SampleWriter.WriteJsonLines(lines, expected);
            var got = LlavaRecipe.PrepareData(arguments with { Data = arguments.Data with { DataPath = lines } }, tiny.Model).Dataset.Samples;
            Assert.Equal(expected.Select(s => (s.Id, s.Turns[^1])), got.Select(s => (s.Id, s.Turns[^1])));
            Assert.Equal(expected.SelectMany(s => s.Images), got.SelectMany(s => s.Images));
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }
}
