namespace Peft.Llava;

/// <summary>Who says a message.</summary>
public enum Speaker
{
    /// <summary>The human.</summary>
    User,

    /// <summary>The model.</summary>
    Assistant,
}

/// <summary>How a template joins system text, roles and messages (LLaVA's <c>SeparatorStyle</c>).</summary>
public enum SeparatorStyle
{
    /// <summary><c>role: message</c> and one separator after everything.</summary>
    Single,

    /// <summary><c>role: message</c> with two separators in turn.</summary>
    Two,

    /// <summary>Role and message glued, one separator after everything.</summary>
    Mpt,

    /// <summary>Messages alone, with two separators in turn.</summary>
    Plain,

    /// <summary><c>[INST] question [/INST] answer</c>, the system text inside the first question.</summary>
    Llama2,
}

/// <summary>How training text and its labels are made (the branches of LLaVA's <c>preprocess</c>).</summary>
public enum TrainingFormat
{
    /// <summary>Image and caption, as in pretraining.</summary>
    Plain,

    /// <summary>Rounds between <c>[INST]</c> and <c>&lt;/s&gt;</c>.</summary>
    Llama2,

    /// <summary>Vicuna: <c>USER: … ASSISTANT: …&lt;/s&gt;</c>.</summary>
    V1,

    /// <summary>MPT and ChatML: everything ends with the separator.</summary>
    Mpt,

    /// <summary>The first version: <c>### Human: …</c>.</summary>
    V0,
}

/// <summary>One message of a conversation.</summary>
/// <param name="Speaker">Who says it.</param>
/// <param name="Text">The text; null or empty writes the bare role, where the answer is to be generated.</param>
/// <param name="HasImage">
/// True if a picture comes with it. In a conversation's first message the placeholder is then put in front, wherever the text has it.
/// </param>
public sealed record ChatMessage(Speaker Speaker, string? Text, bool HasImage = false);

/// <summary>A way to write conversations, as an entry of LLaVA's <c>conv_templates</c>.</summary>
public sealed record ConversationTemplate
{
    /// <summary>The name under which it is known.</summary>
    public required string Name { get; init; }

    /// <summary>The system text.</summary>
    public required string System { get; init; }

    /// <summary>The human's role.</summary>
    public required string UserRole { get; init; }

    /// <summary>The model's role.</summary>
    public required string AssistantRole { get; init; }

    /// <summary>How the parts are joined.</summary>
    public required SeparatorStyle Style { get; init; }

    /// <summary>The (first) separator.</summary>
    public required string Separator { get; init; }

    /// <summary>The second separator, where the style has one.</summary>
    public string? Separator2 { get; init; }

    /// <summary>LLaVA's version string, which chooses the training format; <c>Unknown</c> where it has none.</summary>
    public string Version { get; init; } = "Unknown";

    /// <summary>Example messages that come with the template.</summary>
    public IReadOnlyList<ChatMessage> Examples { get; init; } = [];

    /// <summary>How training text is made with this template.</summary>
    public TrainingFormat TrainingFormat => Style switch
    {
        SeparatorStyle.Plain => TrainingFormat.Plain,
        SeparatorStyle.Llama2 => TrainingFormat.Llama2,
        _ when Version.StartsWith("v1", StringComparison.Ordinal) => TrainingFormat.V1,
        _ when Version == "mpt" => TrainingFormat.Mpt,
        _ => TrainingFormat.V0,
    };

    /// <summary>True for templates that write an image as <c>&lt;Image&gt;&lt;image&gt;&lt;/Image&gt;</c>.</summary>
    public bool UsesImageTags => Version.Contains("mmtag", StringComparison.Ordinal);

    /// <summary>The role's text.</summary>
    public string RoleOf(Speaker speaker) => speaker == Speaker.User ? UserRole : AssistantRole;
}
