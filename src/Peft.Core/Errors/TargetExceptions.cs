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
            + $"{Listed(present)}.{Nearest(wanted, present)}")
    {
        Field = field;
        Wanted = wanted;
        Present = present;
    }

    /// <summary>Creates the exception for settings of which a part matches.</summary>
    /// <param name="unmatched">The entries that match nothing, each with its field: <c>target_modules 'qproj'</c>.</param>
    /// <param name="present">Names that would have matched: the last parts of the paths of fitting modules.</param>
    public TargetNotFoundException(IReadOnlyList<string> unmatched, IReadOnlyList<string> present)
        : base($"{string.Join("; ", (unmatched ?? []).Select(u => u + " matches nothing in the model"))}. Names present: {Listed(present)}.{Nearest((unmatched ?? []).Select(Quoted), present)}")
    {
        ArgumentNullException.ThrowIfNull(unmatched);
        Field = unmatched[0].Split(' ', '[')[0];
        Wanted = unmatched;
        Present = present;
    }

    /// <summary>The field.</summary>
    public string Field { get; }

    /// <summary>What matched nothing.</summary>
    public IReadOnlyList<string> Wanted { get; }

    /// <summary>What would have matched.</summary>
    public IReadOnlyList<string> Present { get; }

    private static string Listed(IReadOnlyList<string> present) => present.Count == 0 ? "none" : string.Join(", ", present);

    private static string Quoted(string unmatched) => unmatched.Split('\'') is [_, var name, ..] ? name : unmatched;

    private static string Nearest(IEnumerable<string> wanted, IReadOnlyList<string> present)
    {
        var found = wanted.Select(w => (Wanted: w, Near: NearestName.Find(w[(w.LastIndexOf('.') + 1)..], present))).Where(n => n.Near is not null).ToList();
        return found.Count == 0 ? "" : $" Probably meant: {string.Join(", ", found.Select(n => $"{n.Near} for {n.Wanted}"))}.";
    }
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
