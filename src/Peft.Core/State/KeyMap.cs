namespace Peft.Core;

/// <summary>
/// Names of one format in another's words: one table, read both ways, so that what is written cannot drift from what is read. <c>{}</c>
/// in a row stands for a number (a layer's) and comes back in the translation, first for first.
/// </summary>
/// <example><c>new KeyMap(("layers.{}.query.weight", "model.layers.{}.self_attn.q_proj.weight"))</c></example>
public sealed class KeyMap
{
    private const string Hole = "{}";
    private readonly Dictionary<string, string>[] _plain = [[], []];
    private readonly List<(string[] Ours, string[] Theirs)> _patterns = [];

    /// <summary>Creates the table.</summary>
    /// <param name="rows">Names or patterns in both formats, with equally many <c>{}</c>. The first row that fits is taken.</param>
    /// <exception cref="ArgumentException">The two sides of a row have different numbers of <c>{}</c>, or a name stands twice.</exception>
    public KeyMap(params IEnumerable<(string Ours, string Theirs)> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        var seen = new[] { new HashSet<string>(), new HashSet<string>() };
        foreach (var (ours, theirs) in rows)
        {
            string[] left = ours.Split(Hole), right = theirs.Split(Hole);
            if (left.Length != right.Length)
                throw new ArgumentException($"'{ours}' has {left.Length - 1} {{}} and '{theirs}' {right.Length - 1}; a row needs as many on both sides.", nameof(rows));
            foreach (var (names, name) in new[] { (seen[0], ours), (seen[1], theirs) })
                if (!names.Add(name)) throw new ArgumentException($"'{name}' stands in two rows; a table that is read both ways can have it once.", nameof(rows));
            if (left.Length > 1) _patterns.Add((left, right));
            else (_plain[0][ours], _plain[1][theirs]) = (theirs, ours);
        }
    }

    /// <summary>Our name for theirs; null if it is not in this format.</summary>
    /// <param name="theirs">A name in the other format.</param>
    public string? ToOurs(string theirs) => Translate(theirs, from: 1);

    /// <summary>Their name for ours; null if it is not in this format.</summary>
    /// <param name="ours">A name in our format.</param>
    public string? ToTheirs(string ours) => Translate(ours, from: 0);

    private string? Translate(string name, int from)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (_plain[from].TryGetValue(name, out string? found)) return found;
        foreach (var (ours, theirs) in _patterns)
        {
            var (source, target) = from == 0 ? (ours, theirs) : (theirs, ours);
            if (Match(name, source) is { } numbers) return target[0] + string.Concat(numbers.Select((number, i) => number + target[i + 1]));
        }
        return null;
    }

    private static List<string>? Match(string name, string[] pieces)
    {
        if (!name.StartsWith(pieces[0], StringComparison.Ordinal)) return null;
        int at = pieces[0].Length;
        var numbers = new List<string>();
        foreach (string piece in pieces.AsSpan(1))
        {
            int end = at;
            while (end < name.Length && char.IsAsciiDigit(name[end])) end++;
            if (end == at || string.CompareOrdinal(name, end, piece, 0, piece.Length) != 0) return null;
            numbers.Add(name[at..end]);
            at = end + piece.Length;
        }
        return at == name.Length ? numbers : null;
    }
}
