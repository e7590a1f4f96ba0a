namespace Peft.Llava;

/// <summary>A conversation that is written by a template: the prompt of a generation, or of a training sample.</summary>
public sealed class Conversation
{
    private readonly List<ChatMessage> _messages = [];

    /// <summary>Begins a conversation.</summary>
    /// <param name="template">How it is written.</param>
    /// <param name="withExamples">Whether the template's own example messages come first.</param>
    public Conversation(ConversationTemplate template, bool withExamples = false)
    {
        ArgumentNullException.ThrowIfNull(template);
        Template = template;
        System = template.System;
        if (withExamples) _messages.AddRange(template.Examples);
    }

    /// <summary>How it is written.</summary>
    public ConversationTemplate Template { get; }

    /// <summary>The system text; the template's unless set otherwise.</summary>
    public string System { get; set; }

    /// <summary>The messages so far.</summary>
    public IReadOnlyList<ChatMessage> Messages => _messages;

    /// <summary>Adds a message of the human.</summary>
    /// <param name="text">The text.</param>
    /// <param name="hasImage">Whether a picture comes with it; see <see cref="ChatMessage"/>.</param>
    public Conversation User(string? text, bool hasImage = false) => Add(new ChatMessage(Speaker.User, text, hasImage));

    /// <summary>Adds a message of the model; null, where it is to be generated.</summary>
    public Conversation Assistant(string? text) => Add(new ChatMessage(Speaker.Assistant, text));

    /// <summary>Adds a message.</summary>
    public Conversation Add(ChatMessage message)
    {
        ArgumentNullException.ThrowIfNull(message);
        _messages.Add(message);
        return this;
    }

    /// <summary>Writes the conversation.</summary>
    /// <exception cref="ConversationException">The template cannot write these messages.</exception>
    /// <remarks>Source: LLaVA <c>Conversation.get_prompt</c>.</remarks>
    public RenderedPrompt Render()
    {
        var messages = WithImageInFront();
        var writer = new PromptWriter();
        switch (Template.Style)
        {
            case SeparatorStyle.Llama2: WriteLlama2(messages, writer); break;
            case SeparatorStyle.Plain: WritePlain(messages, writer); break;
            default: WriteRoles(messages, writer); break;
        }
        return writer.Finish();
    }

    private IReadOnlyList<ChatMessage> WithImageInFront()
    {
        if (_messages.Count == 0 || !_messages[0].HasImage) return _messages;
        string text = PythonText.Strip((_messages[0].Text ?? "").Replace(LlamaTokenizer.ImagePlaceholder, "", StringComparison.Ordinal));
        var rest = _messages.Skip(1);
        return Template.UsesImageTags
            ? [new ChatMessage(Speaker.User, $"<Image>{LlamaTokenizer.ImagePlaceholder}</Image>"), new ChatMessage(Speaker.Assistant, "Received."),
                _messages[0] with { Text = text, HasImage = false }, .. rest]
            : [_messages[0] with { Text = $"{LlamaTokenizer.ImagePlaceholder}\n{text}", HasImage = false }, .. rest];
    }

    private void WriteRoles(IReadOnlyList<ChatMessage> messages, PromptWriter writer)
    {
        bool glued = Template.Style == SeparatorStyle.Mpt;
        writer.Append(System).Append(Template.Separator);
        for (int i = 0; i < messages.Count; i++)
        {
            var message = messages[i];
            writer.Append(Template.RoleOf(message.Speaker)).Append(glued ? "" : ":");
            if (!HasContent(message)) continue;
            string separator = Template.Style == SeparatorStyle.Two && i % 2 == 1 ? Template.Separator2 ?? "" : Template.Separator;
            writer.Message(message.Speaker, (glued ? "" : " ") + message.Text + separator);
        }
    }

    private void WriteLlama2(IReadOnlyList<ChatMessage> messages, PromptWriter writer)
    {
        if (messages.Count > 0 && !HasContent(messages[0])) throw Refuse("its first message is empty", "Begin with a question.");
        if (messages.Count > 0 && messages[0].Speaker != Speaker.User) throw Refuse("its first message is not the user's", "Begin with a question.");
        for (int i = 0; i < messages.Count; i++)
        {
            var message = messages[i];
            if (!HasContent(message)) continue;
            if (i % 2 == 1)
            {
                writer.Message(message.Speaker, $" {message.Text} {Template.Separator2}");
                continue;
            }
            string system = i == 0 && System.Length > 0 ? $"<<SYS>>\n{System}\n<</SYS>>\n\n" : "";
            writer.Message(message.Speaker, $"{Template.Separator}[INST] {system}{message.Text} [/INST]");
        }
        writer.TrimStart(Template.Separator);
    }

    private void WritePlain(IReadOnlyList<ChatMessage> messages, PromptWriter writer)
    {
        writer.Append(System);
        for (int i = 0; i < messages.Count; i++)
        {
            if (!HasContent(messages[i])) continue;
            string separator = (i % 2 == 0 ? Template.Separator : Template.Separator2)
                ?? throw Refuse("the template has no second separator for an answer", "Use it for training only, or another template.");
            writer.Message(messages[i].Speaker, messages[i].Text + separator);
        }
    }

    private static bool HasContent(ChatMessage message) => message.HasImage || !string.IsNullOrEmpty(message.Text);

    private ConversationException Refuse(string reason, string next) => new(Template.Name, reason, next);
}
