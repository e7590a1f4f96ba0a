namespace Peft.Core;

/// <summary>Settings of an adapter that cannot be.</summary>
public sealed class InvalidLoraConfigException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="problems">All that is wrong, one sentence each.</param>
    /// <param name="source">The file, if the settings came from one.</param>
    public InvalidLoraConfigException(IReadOnlyList<string> problems, string? source = null)
        : base($"{source ?? "LoraConfig"}: {string.Join("; ", problems)}.")
    {
        Problems = problems;
    }

    /// <summary>All that is wrong.</summary>
    public IReadOnlyList<string> Problems { get; }
}

/// <summary>An adapter uses something of PEFT that this library does not have.</summary>
public sealed class UnsupportedAdapterFeatureException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="features">What it uses, by PEFT's names.</param>
    /// <param name="source">The file, if there is one.</param>
    public UnsupportedAdapterFeatureException(IReadOnlyList<string> features, string? source = null)
        : base($"{source ?? "The adapter"} uses {string.Join(", ", features)}, which this library does not have; ignoring it would give "
            + "other results. Merge the adapter into its base with PEFT and load the merged model, or use an adapter without it.")
    {
        Features = features;
    }

    /// <summary>What it uses.</summary>
    public IReadOnlyList<string> Features { get; }
}

/// <summary>A pattern of ranks or alphas that reads differently in a file, whose keys are sorted.</summary>
public sealed class PatternOrderException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="module">A layer that would get another value.</param>
    /// <param name="field">The field: rank_pattern or alpha_pattern.</param>
    public PatternOrderException(string module, string field)
        : base($"{field}: several keys match {module}, and in adapter_config.json, whose keys are sorted, another one comes first; the saved "
            + "adapter could not be loaded. Make the keys exclude each other.")
    {
        Module = module;
    }

    /// <summary>The layer.</summary>
    public string Module { get; }
}
