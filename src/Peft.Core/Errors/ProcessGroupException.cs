namespace Peft.Core;

/// <summary>Another process of a group has failed, so that this one cannot go on. The cause is that process's own exception.</summary>
public sealed class ProcessGroupException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="rank">The process that cannot go on.</param>
    /// <param name="where">What it was doing.</param>
    public ProcessGroupException(int rank, string where)
        : base($"Process {rank} cannot go on with {where}: another process of its group has failed. Look at that process's exception, and start all of them again.")
        => Rank = rank;

    /// <summary>The process that cannot go on.</summary>
    public int Rank { get; }
}
