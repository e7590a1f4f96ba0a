namespace Peft.Core;

/// <summary>A folder that is no adapter folder, or not one only.</summary>
public sealed class AdapterFolderException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="reason">What is missing or too much, and what to do.</param>
    public AdapterFolderException(string folder, string reason)
        : base($"{folder}: {reason}")
    {
        Folder = folder;
    }

    /// <summary>The folder.</summary>
    public string Folder { get; }
}

/// <summary>The tensors of an adapter file are not those the model wants; nothing was loaded.</summary>
public sealed class AdapterTensorsException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="source">The file.</param>
    /// <param name="faults">One line for each tensor that does not fit.</param>
    public AdapterTensorsException(string source, IReadOnlyList<string> faults)
        : base($"{source}: {faults.Count} tensor(s) do not fit; nothing was loaded.\n  {string.Join("\n  ", faults.Take(20))}"
            + (faults.Count > 20 ? $"\n  … and {faults.Count - 20} more" : "")
            + "\nIs this the adapter's base model, and are r and target_modules in adapter_config.json those of the file?")
    {
        Source = source;
        Faults = faults;
    }

    /// <summary>The file.</summary>
    public new string Source { get; }

    /// <summary>One line for each fault.</summary>
    public IReadOnlyList<string> Faults { get; }
}

/// <summary>An adapter was made on a base with other weights.</summary>
public sealed class WrongBaseException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="folder">The adapter folder.</param>
    /// <param name="expected">The fingerprint of the base it was made on.</param>
    /// <param name="actual">The fingerprint of the base at hand.</param>
    public WrongBaseException(string folder, string expected, string actual)
        : base($"{folder}: the adapter was made on a base with fingerprint {expected}, and this base has {actual}; its output would be wrong. Load it onto its "
            + $"own base, or set {nameof(AdapterOptions)}.{nameof(AdapterOptions.AllowOtherBase)} if you know better.")
    {
        Folder = folder;
        Expected = expected;
        Actual = actual;
    }

    /// <summary>The adapter folder.</summary>
    public string Folder { get; }

    /// <summary>The fingerprint of the base it was made on.</summary>
    public string Expected { get; }

    /// <summary>The fingerprint of the base at hand.</summary>
    public string Actual { get; }
}
