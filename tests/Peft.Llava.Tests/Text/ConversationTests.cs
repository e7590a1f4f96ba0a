using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class ConversationTests
{
    [Fact]
    public void An_unknown_template_is_named_with_those_that_are_there()
    {
        var e = Assert.Throws<TemplateNotFoundException>(() => Templates.ByName("v2"));
        Assert.Equal("v2", e.Name);
        Assert.Contains("There is no conversation template 'v2'. There are chatml_direct, default,", e.Message);
    }

    [Fact]
    public void The_supervised_spans_are_the_answers_with_their_end()
    {
        var prompt = new Conversation(Templates.ByName("v1")) { System = "S" }.User("Q").Assistant("A1").User("R").Assistant("A2").Render();
        Assert.Equal([" A1</s>", " A2</s>"], prompt.Supervised.Select(s => prompt.Text[s.Start..s.End]));
    }

    [Theory]
    [InlineData("Q", true, "its first message is not the user's")]
    [InlineData("", false, "its first message is empty")]
    public void Llama_2_wants_a_question_first(string text, bool assistant, string reason)
    {
        var conversation = new Conversation(Templates.ByName("llama_2"));
        conversation.Add(new ChatMessage(assistant ? Speaker.Assistant : Speaker.User, text));
        var e = Assert.Throws<ConversationException>(() => conversation.Render());
        Assert.Contains($"The template 'llama_2' cannot write the conversation: {reason}. Begin with a question.", e.Message);
    }

    [Theory]
    [InlineData("v1", "system:x", "turn 0 is from 'system'. Speakers are 'human' and 'gpt'.")]
    [InlineData("v1", "human:x human:y", "turn 1 is from 'human' where 'gpt' should speak. Speakers must alternate")]
    [InlineData("mpt", "", "it has no turns. Remove the sample")]
    [InlineData("plain", "human:<image>", "it has 1 turns. A caption sample has two")]
    [InlineData("plain", "human:x gpt:y", "its first turn has no <image>. Put the placeholder")]
    public void What_cannot_be_trained_on_says_why(string template, string turns, string text)
    {
        var list = turns.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(t => new ConversationTurn(t.Split(':')[0], t.Split(':')[1])).ToList();
        var e = Assert.Throws<ConversationException>(() => TrainingPrompt.Render(Templates.ByName(template), list));
        Assert.Equal(template, e.Template);
        Assert.Contains(text, e.Message);
    }

    [Fact]
    public void With_several_images_the_placeholders_keep_their_places()
    {
        ConversationTurn[] turns = [new("human", "First <image>, then <image>?"), new("gpt", "Yes.")];
        var kept = MultimodalText.Prepare(turns, Templates.Default, useStartEndTokens: true, keepPlaces: true);
        Assert.Equal("First <im_start><image><im_end>, then <im_start><image><im_end>?", kept[0].Value);
        Assert.Equal("<image>\nFirst , then ?", MultimodalText.Prepare(turns, Templates.Default)[0].Value);
    }
}
