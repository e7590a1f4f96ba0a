using Xunit;

namespace Peft.Core.Tests;

/// <summary>Tests that need libtorch's global generator for themselves: nothing else runs beside them.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class AloneCollection
{
    /// <summary>The collection's name.</summary>
    public const string Name = "alone";
}
