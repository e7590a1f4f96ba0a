namespace Peft.Core;

/// <summary>A model whose layers can keep their input alone for the backward and run again there.</summary>
public interface IGradientCheckpointing
{
    /// <summary>Whether they do.</summary>
    bool GradientCheckpointing { get; set; }
}
