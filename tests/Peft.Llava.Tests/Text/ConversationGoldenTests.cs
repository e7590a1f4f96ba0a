using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class ConversationGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows(TextGoldens.Area, c => c.Kind == "conversations");

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Every_template_has_the_peers_values(string folder)
    {
        var golden = new GoldenCase(folder);
        using var templates = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("templates").GetString()!)));
        Assert.Equal(Templates.Default.Name, golden.Json.GetProperty("default_conversation").GetString());
        foreach (var entry in templates.RootElement.EnumerateObject())
        {
            var ours = Templates.ByName(entry.Name);
            var theirs = entry.Value;
            Assert.Equal(theirs.GetProperty("system").GetString(), ours.System);
            Assert.Equal([theirs.GetProperty("roles")[0].GetString(), theirs.GetProperty("roles")[1].GetString()], [ours.UserRole, ours.AssistantRole]);
            Assert.Equal(theirs.GetProperty("sep").GetString(), ours.Separator);
            Assert.Equal(theirs.GetProperty("sep2").GetString(), ours.Separator2);
            Assert.Equal(theirs.GetProperty("version").GetString(), ours.Version);
            Assert.Equal(theirs.GetProperty("sep_style").GetString()!.Replace("_", ""), ours.Style.ToString(), ignoreCase: true);
            Assert.Equal(theirs.GetProperty("offset").GetInt32(), ours.Examples.Count);
            Assert.Equal(theirs.GetProperty("messages").EnumerateArray().Select(m => (m[0].GetString(), m[1].GetString())),
                ours.Examples.Select(m => ((string?)ours.RoleOf(m.Speaker), m.Text)));
        }
    }

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Prompts_are_written_as_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var conversations = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("conversations").GetString()!)));
        var byName = conversations.RootElement.EnumerateArray().ToDictionary(c => c.GetProperty("name").GetString()!);
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (var row in rows)
        {
            string template = row.GetProperty("template").GetString()!, name = row.GetProperty("conversation").GetString()!;
            var conversation = Read(Templates.ByName(template), byName[name]);
            if (row.TryGetProperty("error", out var error))
            {
                var e = Assert.Throws<ConversationException>(() => conversation.Render());
                Assert.Equal(template, e.Template);
                if (error.GetString()!.StartsWith("TypeError", StringComparison.Ordinal)) Assert.Contains("no second separator", e.Message);
                continue;
            }
            string expected = row.GetProperty("prompt").GetString()!, got = conversation.Render().Text;
            if (expected != got) failures.Add($"{template} {name}: expected '{expected}', got '{got}'");
        }
        TextGoldens.AssertNone(failures, rows.Count);
    }

    private static Conversation Read(ConversationTemplate template, JsonElement json)
    {
        var conversation = new Conversation(template, json.TryGetProperty("keep_messages", out var keep) && keep.GetBoolean());
        if (json.TryGetProperty("system", out var system) && system.ValueKind == JsonValueKind.String) conversation.System = system.GetString()!;
        foreach (var message in json.GetProperty("messages").EnumerateArray())
        {
            var speaker = message[0].GetString() == "user" ? Speaker.User : Speaker.Assistant;
            bool image = message[1].ValueKind == JsonValueKind.Array;
            conversation.Add(new ChatMessage(speaker, (image ? message[1][0] : message[1]).GetString(), image));
        }
        return conversation;
    }
}
