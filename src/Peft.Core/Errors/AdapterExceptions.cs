namespace Peft.Core;

/// <summary>A name that an adapter cannot have.</summary>
public sealed class AdapterNameException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The name.</param>
    /// <param name="reason">Why not.</param>
    public AdapterNameException(string name, string reason)
        : base($"An adapter cannot be called '{name}': {reason}. Choose another name.")
    {
        Name = name;
    }

    /// <summary>The name.</summary>
    public string Name { get; }
}

/// <summary>An adapter name that the model does not have.</summary>
public sealed class AdapterNotFoundException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The name asked for.</param>
    /// <param name="present">The adapters there are.</param>
    public AdapterNotFoundException(string name, IReadOnlyCollection<string> present)
        : base($"There is no adapter '{name}'; there {(present.Count == 1 ? "is" : "are")} {(present.Count == 0 ? "none" : string.Join(", ", present))}.")
    {
        Name = name;
        Present = present;
    }

    /// <summary>The name asked for.</summary>
    public string Name { get; }

    /// <summary>The adapters there are.</summary>
    public IReadOnlyCollection<string> Present { get; }
}

/// <summary>Something that cannot be done in the state the adapters are in.</summary>
public sealed class AdapterStateException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What cannot be done, why, and what to do first.</param>
    public AdapterStateException(string message)
        : base(message)
    {
    }
}

/// <summary>NaN or infinity where finite numbers belong.</summary>
public sealed class NonFiniteWeightsException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="names">The tensors.</param>
    /// <param name="where">The file or what was being done.</param>
    public NonFiniteWeightsException(IReadOnlyList<string> names, string where)
        : base($"{where}: {names.Count} tensor(s) hold NaN or infinity: {string.Join(", ", names.Take(5))}{(names.Count > 5 ? ", …" : "")}. "
            + "The adapter is broken; use an earlier checkpoint.")
    {
        Names = names;
    }

    /// <summary>The tensors.</summary>
    public IReadOnlyList<string> Names { get; }
}

/// <summary>A request to combine adapters that cannot be met.</summary>
public sealed class AdapterCombinationException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What does not fit, and what to do.</param>
    public AdapterCombinationException(string message)
        : base(message)
    {
    }
}
