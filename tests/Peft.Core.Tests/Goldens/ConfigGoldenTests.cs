using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Testing;
using Xunit;

namespace Peft.Core.Tests;

/// <summary>adapter_config.json as PEFT's versions wrote it.</summary>
public sealed class ConfigGoldenTests
{
    // What a reader's own dump has and the file has not, or has by the reader's version.
    private static readonly string[] OfTheReader = ["runtime_config", "peft_version"];

    public static IEnumerable<TheoryDataRow<string>> Cases => Peft.Testing.Goldens.Rows(AdapterCase.Area, c => c.Kind == "config");

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void Files_of_all_versions_are_read_as_PEFT_reads_them(string folder)
    {
        var golden = new GoldenCase(folder);
        foreach (var entry in golden.Json.GetProperty("files").EnumerateArray())
        {
            string file = entry.GetProperty("file").GetString()!;
            var config = AdapterConfigJson.Read(golden.PathOf(file));
            if (!entry.GetProperty("ok").GetBoolean()) continue;         // that reader gave up; this one must not
            var parsed = JsonNode.Parse(File.ReadAllText(golden.PathOf(entry.GetProperty("parsed").GetString()!)))!.AsObject();
            var ours = JsonNode.Parse(AdapterConfigJson.Write(config, allFields: true))!.AsObject();
            foreach (var (name, value) in parsed.Where(f => !OfTheReader.Contains(f.Key)))
                Assert.True(JsonNode.DeepEquals(value, ours[name]), $"{file}, field {name}, reader {entry.GetProperty("reader")}: expected {value?.ToJsonString() ?? "null"}, got {ours[name]?.ToJsonString() ?? "null"}.");
        }
    }

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void Files_of_all_versions_are_written_again_byte_for_byte(string folder)
    {
        var golden = new GoldenCase(folder);
        foreach (string file in golden.Json.GetProperty("files").EnumerateArray().Select(e => e.GetProperty("file").GetString()!).Distinct())
            Assert.Equal(File.ReadAllText(golden.PathOf(file)), AdapterConfigJson.Write(AdapterConfigJson.Read(golden.PathOf(file))));
    }

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void New_settings_are_written_in_the_form_that_every_version_since_0_10_reads(string folder)
    {
        var golden = new GoldenCase(folder);
        if (!golden.Json.GetProperty("versions").TryGetProperty("0.10.0", out _)) return;
        foreach (var settings in golden.Json.GetProperty("settings").EnumerateObject())
        {
            string file = golden.PathOf($"0.10.0/{settings.Name}/adapter_config.json");
            var recorded = AdapterConfigJson.Read(file);
            var written = JsonNode.Parse(AdapterConfigJson.Write(recorded with { Source = new Dictionary<string, JsonElement>() }))!.AsObject();
            var expected = JsonNode.Parse(File.ReadAllText(file))!.AsObject();
            // One value and a list of it mean the same.
            foreach (string field in new[] { "layers_pattern", "layers_to_transform", "modules_to_save" })
                if (expected[field] is JsonValue one) expected[field] = new JsonArray(one.DeepClone());
            Assert.True(JsonNode.DeepEquals(expected, written), $"{file}: expected {PythonJson.Write(expected)}, got {PythonJson.Write(written)}.");
        }
    }
}
