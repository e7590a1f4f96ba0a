namespace Peft.Core;

/// <summary>Names or patterns for modules that match none in the model.</summary>
public sealed class TargetNotFoundException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="field">The field they stand in: target_modules, modules_to_save, …</param>
    /// <param name="wanted">What matched nothing.</param>
    /// <param name="present">Names that would have matched: the last parts of the paths of fitting modules.</param>
    /// <param name="count">How many fitting modules there are.</param>
    public TargetNotFoundException(string field, IReadOnlyList<string> wanted, IReadOnlyList<string> present, int count)
        : base($"{field} [{string.Join(", ", wanted)}] matches none of the {count} fitting modules. Names present: "
            + $"{(present.Count == 0 ? "none" : string.Join(", ", present))}.")
    {
        Field = field;
        Wanted = wanted;
        Present = present;
    }

    /// <summary>The field.</summary>
    public string Field { get; }

    /// <summary>What matched nothing.</summary>
    public IReadOnlyList<string> Wanted { get; }

    /// <summary>What would have matched.</summary>
    public IReadOnlyList<string> Present { get; }
}

/// <summary>A module that was asked to carry an adapter and cannot.</summary>
public sealed class UnsupportedTargetException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="path">The module's path.</param>
    /// <param name="reason">Why it cannot.</param>
    public UnsupportedTargetException(string path, string reason)
        : base($"{path}: {reason}")
    {
        ModulePath = path;
    }

    /// <summary>The module's path.</summary>
    public string ModulePath { get; }
}

/// <summary>A module that cannot be put in the place of another.</summary>
public sealed class ModuleReplacementException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="path">The place.</param>
    /// <param name="reason">Why it cannot, and what to do.</param>
    public ModuleReplacementException(string path, string reason)
        : base($"{path}: {reason}")
    {
        ModulePath = path;
    }

    /// <summary>The place.</summary>
    public string ModulePath { get; }
}
