namespace Peft.Llava;

/// <summary>Orders of samples in which those of a batch have about the same length, as LLaVA's and transformers' samplers make them.</summary>
public static class LengthGrouping
{
    /// <summary>
    /// LLaVA's order: a permutation cut into megabatches of <paramref name="worldSize"/> times <paramref name="batchSize"/>, each sorted from
    /// long to short and dealt evenly to the processes.
    /// </summary>
    /// <param name="lengths">A length per sample.</param>
    /// <param name="batchSize">Samples per process and micro-batch.</param>
    /// <param name="worldSize">Processes times accumulation steps.</param>
    /// <param name="random">Gives the permutation.</param>
    public static int[] ByLength(IReadOnlyList<int> lengths, int batchSize, int worldSize, TorchRandom random)
    {
        ArgumentNullException.ThrowIfNull(lengths);
        ArgumentNullException.ThrowIfNull(random);
        var order = new List<int>(lengths.Count);
        foreach (var megabatch in random.Permutation(lengths.Count).Chunk(batchSize * worldSize))
        {
            int[] sorted = [.. megabatch.OrderByDescending(i => lengths[i])];
            foreach (var chunk in SplitEvenly(sorted, lengths, worldSize)) order.AddRange(chunk);
        }
        return [.. order];
    }

    /// <summary>
    /// LLaVA's order with <c>group_by_modality_length</c>: image samples and text samples in megabatches of their own; what does not fill one
    /// comes last, mixed, sorted by index.
    /// </summary>
    /// <param name="modalityLengths">A length per sample, negative for a sample without an image, never 0.</param>
    /// <param name="batchSize">Samples per process and micro-batch.</param>
    /// <param name="worldSize">Processes times accumulation steps.</param>
    /// <param name="random">Gives the permutations within the two kinds.</param>
    /// <param name="megabatchRandom">
    /// Gives the order of the megabatches; null for <paramref name="random"/>. LLaVA hands its generator to this last shuffle only, and draws
    /// the two others from the global one.
    /// </param>
    /// <exception cref="TrainingDataException">A length is 0.</exception>
    public static int[] ByModality(
        IReadOnlyList<int> modalityLengths, int batchSize, int worldSize, TorchRandom random, TorchRandom? megabatchRandom = null)
    {
        ArgumentNullException.ThrowIfNull(modalityLengths);
        ArgumentNullException.ThrowIfNull(random);
        for (int i = 0; i < modalityLengths.Count; i++)
            if (modalityLengths[i] == 0)
                throw new TrainingDataException($"Sample number {i} has length 0, so it belongs to neither kind of group_by_modality_length. "
                    + "Give it text, or leave it out.");
        if (modalityLengths.All(l => l > 0) || modalityLengths.All(l => l < 0))
            return ByLength(modalityLengths, batchSize, worldSize, megabatchRandom ?? random);

        int[] withImage = [.. Enumerable.Range(0, modalityLengths.Count).Where(i => modalityLengths[i] > 0)];
        int[] textOnly = [.. Enumerable.Range(0, modalityLengths.Count).Where(i => modalityLengths[i] < 0)];
        int megabatch = batchSize * worldSize;
        var first = ByLength([.. withImage.Select(i => modalityLengths[i])], batchSize, worldSize, random).Select(i => withImage[i]).Chunk(megabatch).ToList();
        var second = ByLength([.. textOnly.Select(i => -modalityLengths[i])], batchSize, worldSize, random).Select(i => textOnly[i]).Chunk(megabatch).ToList();
        int[] rest = [.. first[^1].Concat(second[^1]).Order()];
        var whole = first.SkipLast(1).Concat(second.SkipLast(1)).ToList();
        return [.. (megabatchRandom ?? random).Permutation(whole.Count).SelectMany(i => whole[i]), .. rest];
    }

    /// <summary>
    /// transformers' order for <c>group_by_length</c>: megabatches of up to 50 batches (fewer for a small set), each sorted from long to
    /// short, the longest sample of all moved to the front, so that memory runs out at once or never.
    /// </summary>
    /// <param name="lengths">A length per sample.</param>
    /// <param name="batchSize">Samples per step.</param>
    /// <param name="random">Gives the permutation.</param>
    public static int[] ByLengthAsTransformers(IReadOnlyList<int> lengths, int batchSize, TorchRandom random)
    {
        ArgumentNullException.ThrowIfNull(lengths);
        ArgumentNullException.ThrowIfNull(random);
        int factor = Math.Max(1, Math.Min(lengths.Count / (batchSize * 4), 50));
        var megabatches = random.Permutation(lengths.Count).Chunk(factor * batchSize)
            .Select(m => m.OrderByDescending(i => lengths[i]).ToArray()).ToList();
        if (megabatches.Count == 0) return [];
        int longest = 0;
        for (int i = 1; i < megabatches.Count; i++)
            if (lengths[megabatches[i][0]] > lengths[megabatches[longest][0]]) longest = i;
        (megabatches[0][0], megabatches[longest][0]) = (megabatches[longest][0], megabatches[0][0]);
        return [.. megabatches.SelectMany(m => m)];
    }

    /// <summary>Deals indices to chunks so that their total lengths are about equal (LLaVA's <c>split_to_even_chunks</c>).</summary>
    /// <param name="indices">Samples, from long to short.</param>
    /// <param name="lengths">A length per sample.</param>
    /// <param name="chunkCount">How many chunks; if they do not come out even, the samples are dealt in turn.</param>
    public static IReadOnlyList<IReadOnlyList<int>> SplitEvenly(IReadOnlyList<int> indices, IReadOnlyList<int> lengths, int chunkCount)
    {
        ArgumentNullException.ThrowIfNull(indices);
        ArgumentNullException.ThrowIfNull(lengths);
        var chunks = Enumerable.Range(0, chunkCount).Select(_ => new List<int>()).ToArray();
        if (indices.Count % chunkCount != 0)
        {
            for (int i = 0; i < indices.Count; i++) chunks[i % chunkCount].Add(indices[i]);
            return chunks;
        }
        int capacity = indices.Count / chunkCount;
        var totals = new double[chunkCount];
        foreach (int index in indices)
        {
            int shortest = Array.IndexOf(totals, totals.Min());
            chunks[shortest].Add(index);
            totals[shortest] = chunks[shortest].Count == capacity ? double.PositiveInfinity : totals[shortest] + lengths[index];
        }
        return chunks;
    }
}
