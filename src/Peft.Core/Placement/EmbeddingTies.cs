namespace Peft.Core;

/// <summary>What an adapter does to the two modules that share one weight, by PEFT's rules.</summary>
internal static class EmbeddingTies
{
    /// <summary>
    /// The output head that shares the copy of the embedding: with <c>ensure_weight_tying</c>, one of the two in <c>modules_to_save</c> means the
    /// embedding, and the head follows.
    /// </summary>
    /// <param name="parts">The model's account of itself, or null.</param>
    /// <param name="config">The settings.</param>
    /// <param name="toSave">The modules to save; changed to hold the embedding instead of the head.</param>
    /// <returns>The head's outer path, or null.</returns>
    public static string? OfModules(IAdapterTargets? parts, LoraConfig config, List<string> toSave)
    {
        if (!config.EnsureWeightTying || parts is not { TiesEmbeddings: true, InputEmbedding: { } embedding, OutputHead: { } head }) return null;
        bool named = toSave.Remove(head);
        if (!named && !toSave.Contains(embedding)) return null;
        if (!toSave.Contains(embedding)) toSave.Add(embedding);
        return head;
    }

    /// <summary>The output head whose rows are the embedding's: wherever the embedding's rows are trained, unless the head has rows of its own.</summary>
    /// <param name="parts">The model's account of itself, or null.</param>
    /// <param name="config">The settings.</param>
    /// <param name="tokens">The rows by outer path; equal rows of the head are taken out.</param>
    /// <returns>The head's outer path, or null.</returns>
    /// <exception cref="InvalidLoraConfigException">Different rows are asked for, and the tie must be kept.</exception>
    public static string? OfTokens(IAdapterTargets? parts, LoraConfig config, Dictionary<string, IReadOnlyList<long>> tokens)
    {
        if (parts is not { TiesEmbeddings: true, InputEmbedding: { } embedding, OutputHead: { } head } || !tokens.TryGetValue(embedding, out var rows)) return null;
        if (tokens.TryGetValue(head, out var own) && !own.SequenceEqual(rows))
        {
            if (!config.EnsureWeightTying) return null;
            throw new InvalidLoraConfigException([$"ensure_weight_tying wants the same trainable_token_indices for {embedding} [{string.Join(", ", rows)}] and "
                + $"{head} [{string.Join(", ", own)}], which share one weight; name the same, or give up the tie"]);
        }
        tokens.Remove(head);
        return head;
    }

    /// <summary>What PEFT warns of.</summary>
    /// <param name="parts">The model's account of itself, or null.</param>
    /// <param name="adapter">The adapter's name.</param>
    /// <param name="config">Its settings.</param>
    /// <param name="plan">Its plan.</param>
    /// <returns>The text, or null.</returns>
    public static string? Irregularity(IAdapterTargets? parts, string adapter, LoraConfig config, AdapterPlan plan)
    {
        bool ties = parts is { TiesEmbeddings: true, InputEmbedding: not null, OutputHead: not null };
        if (config.EnsureWeightTying && !ties) return $"adapter '{adapter}': ensure_weight_tying has no effect, since the model's embedding and output head are not tied";
        if (!ties) return null;
        var on = plan.Targets.Select(t => t.Path).Concat(plan.ModulesToSave).Where(p => p == parts!.InputEmbedding || p == parts.OutputHead).ToList();
        if (config.EnsureWeightTying)
            return on.Count > 0 || plan.TiedTokens is not null ? null : $"adapter '{adapter}': ensure_weight_tying has no effect, since nothing of it is on {parts!.InputEmbedding} or {parts.OutputHead}";
        return on.Count == 0 ? null
            : $"adapter '{adapter}' is on {string.Join(" and ", on)}, but {parts!.InputEmbedding} and {parts.OutputHead} share one weight; a merge changes both (ensure_weight_tying adapts both)";
    }
}
