using Peft.Core;

namespace Peft.Llava;

/// <summary>There is no conversation template of a name.</summary>
public sealed class TemplateNotFoundException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The name asked for.</param>
    /// <param name="present">The names that are there.</param>
    public TemplateNotFoundException(string name, IEnumerable<string> present)
        : base($"There is no conversation template '{name}'. There are {string.Join(", ", present.Order(StringComparer.Ordinal))}. "
            + "Take one of these, or make a ConversationTemplate of your own.")
    {
        Name = name;
    }

    /// <summary>The name asked for.</summary>
    public string Name { get; }
}
