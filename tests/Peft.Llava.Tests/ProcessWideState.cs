using Xunit;

namespace Peft.Llava.Tests;

/// <summary>
/// Tests that depend on what belongs to the whole process (libtorch's random generator, resident memory) run alone:
/// <c>[Collection(ProcessWideState.Name)]</c>.
/// </summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class ProcessWideState
{
    public const string Name = "process-wide state";
}
