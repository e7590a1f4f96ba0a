using Peft.Core;

namespace Peft.Llava;

/// <summary>A preflight found samples that cannot be trained on, and the policy does not allow for them.</summary>
public sealed class PreflightException : PeftException
{
    private const int Shown = 10;

    /// <summary>Creates the exception.</summary>
    /// <param name="sampleCount">Samples of the data set.</param>
    /// <param name="findings">The findings that are not allowed for, at least one.</param>
    /// <param name="nextStep">What to do, as a sentence.</param>
    public PreflightException(int sampleCount, IReadOnlyList<PreflightFinding> findings, string nextStep)
        : base($"{findings.DistinctBy(f => f.Place).Count()} of {sampleCount} samples cannot be trained on. {nextStep}"
            + string.Concat(findings.Take(Shown).Select(f => $"\n  {f.Category}: {f.Message}"))
            + (findings.Count > Shown ? $"\n  … and {findings.Count - Shown} more" : ""))
    {
        Findings = findings;
    }

    /// <summary>The findings that are not allowed for.</summary>
    public IReadOnlyList<PreflightFinding> Findings { get; }
}
