namespace Peft.Llava;

/// <summary>Puts the longest batch of an epoch first, so that memory which does not suffice shows in the first step.</summary>
public static class LongestFirst
{
    /// <summary>Exchanges the first batch with the one of most tokens (of several the first); all others stay where they are.</summary>
    /// <param name="batches">The batches of an epoch: sample numbers.</param>
    /// <param name="tokens">Tokens of each sample.</param>
    /// <returns>The batches in their new order.</returns>
    public static IReadOnlyList<int[]> Swap(IReadOnlyList<int[]> batches, IReadOnlyList<int> tokens)
    {
        ArgumentNullException.ThrowIfNull(batches);
        ArgumentNullException.ThrowIfNull(tokens);
        var result = batches.ToArray();
        if (result.Length == 0) return result;
        int longest = 0;
        var totals = result.Select(batch => batch.Sum(i => (long)tokens[i])).ToArray();
        for (int i = 1; i < totals.Length; i++)
            if (totals[i] > totals[longest]) longest = i;
        (result[0], result[longest]) = (result[longest], result[0]);
        return result;
    }
}
