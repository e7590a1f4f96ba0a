namespace Peft.Core;

/// <summary>A file holds no tensor of the name asked for.</summary>
public sealed class TensorNotFoundException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="source">The file or folder.</param>
    /// <param name="name">The name asked for.</param>
    /// <param name="present">The names that are there.</param>
    public TensorNotFoundException(string source, string name, IReadOnlyCollection<string> present)
        : base($"{source} holds no tensor '{name}'. It holds {present.Count}: {string.Join(", ", present.Take(5))}"
            + (present.Count > 5 ? ", …" : "") + ". "
            + (NearestName.Find(name, present) is { } near ? $"Did you mean '{near}'?" : "Ask for one of these, or check that this is the right file."))
    {
        SourceFile = source;
        Name = name;
    }

    /// <summary>The file or folder.</summary>
    public string SourceFile { get; }

    /// <summary>The name asked for.</summary>
    public string Name { get; }
}
