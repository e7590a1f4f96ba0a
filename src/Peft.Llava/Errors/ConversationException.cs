using Peft.Core;

namespace Peft.Llava;

/// <summary>A template cannot write a conversation, or a conversation cannot be trained on.</summary>
public sealed class ConversationException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="template">The template's name.</param>
    /// <param name="reason">What is wrong with the conversation, as half a sentence.</param>
    /// <param name="nextStep">What to do, as a sentence.</param>
    public ConversationException(string template, string reason, string nextStep)
        : base($"The template '{template}' cannot write the conversation: {reason}. {nextStep}")
    {
        Template = template;
        Reason = reason;
    }

    /// <summary>The template's name.</summary>
    public string Template { get; }

    /// <summary>What is wrong with the conversation.</summary>
    public string Reason { get; }
}
