namespace Peft.Llava;

/// <summary>One tensor a model consists of.</summary>
/// <param name="Name">Its name in memory (the original layout's).</param>
/// <param name="Shape">Its shape.</param>
public sealed record TensorSpec(string Name, IReadOnlyList<long> Shape);
