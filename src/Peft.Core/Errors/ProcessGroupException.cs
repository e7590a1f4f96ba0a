namespace Peft.Core;

/// <summary>A process of a group cannot go on: another one has failed, and the cause is that process's own exception, or they do not do the same.</summary>
public sealed class ProcessGroupException : PeftException
{
    /// <summary>Creates the exception for a process that heard of another's failure.</summary>
    /// <param name="rank">The process that cannot go on.</param>
    /// <param name="where">What it was doing.</param>
    public ProcessGroupException(int rank, string where)
        : base($"Process {rank} cannot go on with {where}: another process of its group has failed. Look at that process's exception, and start all of them again.")
        => Rank = rank;

    /// <summary>Creates the exception for processes that met at different operations.</summary>
    /// <param name="rank">The process that throws it.</param>
    /// <param name="one">What one of them does, as a clause.</param>
    /// <param name="another">What another does, as a clause.</param>
    public ProcessGroupException(int rank, string one, string another)
        : base($"The processes of a group do not do the same: {one} where {another}. Every process has to call the same operations in the same order, with tensors of the same shapes "
            + "and dtypes.")
        => Rank = rank;

    /// <summary>The process that cannot go on.</summary>
    public int Rank { get; }
}
