namespace Peft.Core;

/// <summary>Finds the name that was probably meant.</summary>
internal static class NearestName
{
    /// <summary>
    /// The candidate that differs by a prefix of whole parts (<c>model.</c>, <c>base_model.model.</c>), else the one with the fewest slips,
    /// if they are few for its length; else null.
    /// </summary>
    public static string? Find(string name, IEnumerable<string> candidates)
    {
        string? best = null;
        int fewest = Math.Min(Math.Max(2, name.Length / 6), name.Length / 2) + 1;
        foreach (string candidate in candidates)
        {
            if (candidate == name) continue;
            if (candidate.EndsWith("." + name, StringComparison.Ordinal) || name.EndsWith("." + candidate, StringComparison.Ordinal)) return candidate;
            if (Math.Abs(candidate.Length - name.Length) >= fewest) continue;
            int slips = Distance(name, candidate, fewest);
            if (slips < fewest) (best, fewest) = (candidate, slips);
        }
        return best;
    }

    // Letters changed, left out, added, or swapped with their neighbour; stops counting at the limit.
    private static int Distance(string x, string y, int limit)
    {
        int[] before = new int[y.Length + 1], last = [.. Enumerable.Range(0, y.Length + 1)], now = new int[y.Length + 1];
        for (int i = 1; i <= x.Length; i++)
        {
            now[0] = i;
            int least = i;
            for (int j = 1; j <= y.Length; j++)
            {
                int change = last[j - 1] + (x[i - 1] == y[j - 1] ? 0 : 1);
                now[j] = Math.Min(change, Math.Min(last[j], now[j - 1]) + 1);
                if (i > 1 && j > 1 && x[i - 1] == y[j - 2] && x[i - 2] == y[j - 1]) now[j] = Math.Min(now[j], before[j - 2] + 1);
                least = Math.Min(least, now[j]);
            }
            if (least >= limit) return limit;
            (before, last, now) = (last, now, before);
        }
        return last[y.Length];
    }
}
