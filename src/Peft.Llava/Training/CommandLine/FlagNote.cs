namespace Peft.Llava;

/// <summary>What became of a flag.</summary>
public enum FlagOutcome
{
    /// <summary>It decides what it names.</summary>
    Taken,

    /// <summary>The base's own value stays in place of the flag's.</summary>
    Kept,

    /// <summary>It changes nothing here, and the run goes on without it.</summary>
    Ignored,
}

/// <summary>What became of one flag of a command line.</summary>
/// <param name="Flag">The flag's name, without the dashes.</param>
/// <param name="Outcome">What became of it.</param>
/// <param name="Text">Its value, or why it was not taken as it stands; part of a sentence.</param>
/// <param name="Warns">Whether the user should be told, since the run differs from what the flag asks for.</param>
public sealed record FlagNote(string Flag, FlagOutcome Outcome, string Text, bool Warns = false)
{
    /// <summary>One line: outcome, flag, text.</summary>
    public override string ToString() => $"{Outcome.ToString().ToLowerInvariant()}: --{Flag} {Text}";
}
