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
