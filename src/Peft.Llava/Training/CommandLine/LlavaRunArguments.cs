namespace Peft.Llava;

/// <summary>Whether a run from flags goes on from a checkpoint.</summary>
public enum CheckpointResume
{
    /// <summary>From the newest of the output folder's last run, if it has one: what LLaVA's script does.</summary>
    IfThere,

    /// <summary>From the newest, which has to be there: <c>--resume_from_checkpoint True</c>.</summary>
    Always,

    /// <summary>Never: <c>--resume_from_checkpoint False</c>.</summary>
    Never,
}

/// <summary>What the flags say of the run itself: where it goes on, who watches it, and what became of each of them.</summary>
public sealed record LlavaRunArguments
{
    /// <summary><c>--resume_from_checkpoint</c>.</summary>
    public CheckpointResume Resume { get; init; }

    /// <summary>The checkpoint that <c>--resume_from_checkpoint</c> names, or null.</summary>
    public string? Checkpoint { get; init; }

    /// <summary><c>--dry_run</c>: nothing is to be trained, only told (<see cref="LlavaRecipe.DryRun"/>).</summary>
    public bool DryRun { get; init; }

    /// <summary><c>--report_to tensorboard</c>: whether each step goes into an event file.</summary>
    public bool TensorBoard { get; init; }

    /// <summary><c>--logging_dir</c>: the event file's folder; null for one of the run's start below <c>runs</c> in the output folder.</summary>
    public string? LoggingFolder { get; init; }

    /// <summary>What became of each flag, in the order of the command line.</summary>
    public IReadOnlyList<FlagNote> Notes { get; init; } = [];

    /// <summary>Of <see cref="Notes"/> those that the user should be told.</summary>
    public IEnumerable<FlagNote> Warnings => Notes.Where(n => n.Warns);
}
