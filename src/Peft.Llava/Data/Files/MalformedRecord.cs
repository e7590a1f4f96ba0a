using Peft.Core;

namespace Peft.Llava;

/// <summary>Leaves the reading of one record; becomes a <see cref="RecordFault"/> and is never seen outside.</summary>
internal sealed class MalformedRecord(RecordProblem kind, string problem) : PeftException(problem)
{
    public RecordProblem Kind { get; } = kind;
}
