namespace Peft.Llava;

/// <summary>The name that was probably meant.</summary>
internal static class NearestText
{
    /// <summary>The candidate with the fewest slips, a common start counting in its favour.</summary>
    public static string Find(string name, IEnumerable<string> candidates)
        => candidates.MinBy(known => Distance(name, known) - CommonStart(name, known) / 2.0)!;

    /// <summary>The same, if it has few slips for its length, capitals aside; else null.</summary>
    public static string? FindNear(string name, IEnumerable<string> candidates)
        => candidates.Where(known => Distance(name.ToUpperInvariant(), known.ToUpperInvariant()) <= Math.Max(1, name.Length / 4))
            .MinBy(known => Distance(name, known));

    private static int CommonStart(string a, string b) => a.Zip(b).TakeWhile(pair => pair.First == pair.Second).Count();

    /// <summary>Edit distance (Levenshtein).</summary>
    private static int Distance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int above = row[j];
                row[j] = Math.Min(Math.Min(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }
        return row[^1];
    }
}
