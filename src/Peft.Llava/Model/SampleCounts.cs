namespace Peft.Llava;

/// <summary>How much of a batch belongs to each sample.</summary>
/// <param name="Tiles">Tiles of each sample's pictures.</param>
/// <param name="Supervised">Supervised tokens of each sample.</param>
internal sealed record SampleCounts(IReadOnlyList<int> Tiles, IReadOnlyList<int> Supervised);
