using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What was generated.</summary>
/// <param name="TokenIds">New ids of each sample, its end token included if it has one.</param>
/// <param name="Scores">F32 (B, V) per step, if asked for: processed scores; those of ended samples are not defined. Owned by the caller.</param>
public sealed record GenerationResult(IReadOnlyList<IReadOnlyList<int>> TokenIds, IReadOnlyList<Tensor> Scores)
{
    /// <summary>Steps taken: the length of the longest sample.</summary>
    public int StepCount => TokenIds.Count == 0 ? 0 : TokenIds.Max(ids => ids.Count);

    /// <summary>The ids as a rectangle.</summary>
    /// <param name="paddingId">What stands after a sample's end.</param>
    /// <returns>A fresh I64 tensor (B, <see cref="StepCount"/>).</returns>
    public Tensor ToTensor(long paddingId = 0)
    {
        int steps = StepCount;
        var flat = new long[TokenIds.Count * steps];
        Array.Fill(flat, paddingId);
        for (int row = 0; row < TokenIds.Count; row++)
            for (int i = 0; i < TokenIds[row].Count; i++) flat[row * steps + i] = TokenIds[row][i];
        return tensor(flat, [TokenIds.Count, steps]);
    }
}
