using System.Collections;
using System.Runtime.CompilerServices;

namespace Peft.Core;

/// <summary>
/// Which modules are meant: a list of names (a module is meant when its path equals an entry or ends in "." + entry), a regular expression
/// that must match the whole path, or all linear layers but the output head.
/// </summary>
/// <remarks>Write a list as <c>["q_proj", "v_proj"]</c>.</remarks>
[CollectionBuilder(typeof(TargetModules), nameof(Names))]
public sealed class TargetModules : IReadOnlyList<string>, IEquatable<TargetModules>
{
    /// <summary>PEFT's word for <see cref="AllLinear"/>.</summary>
    public const string AllLinearWord = "all-linear";

    private readonly string[] _names;

    private TargetModules(string[] names, string? pattern)
    {
        _names = names;
        Pattern = pattern;
    }

    /// <summary>Every linear layer except the output head.</summary>
    public static TargetModules AllLinear { get; } = new([], AllLinearWord);

    /// <summary>The regular expression (Python's syntax), <see cref="AllLinearWord"/>, or null for a list.</summary>
    public string? Pattern { get; }

    /// <summary>Whether this is <see cref="AllLinear"/>.</summary>
    public bool IsAllLinear => string.Equals(Pattern, AllLinearWord, StringComparison.OrdinalIgnoreCase);

    /// <inheritdoc/>
    public int Count => _names.Length;

    /// <inheritdoc/>
    public string this[int index] => _names[index];

    /// <summary>A list of names; duplicates are dropped.</summary>
    /// <param name="names">Full paths or their last parts.</param>
    /// <returns>The value.</returns>
    public static TargetModules Names(ReadOnlySpan<string> names) => new([.. names.ToArray().Distinct()], null);

    /// <summary>A regular expression in Python's syntax; it must match a whole path.</summary>
    /// <param name="pattern">The expression, or <see cref="AllLinearWord"/>.</param>
    /// <returns>The value.</returns>
    public static TargetModules Regex(string pattern)
    {
        ArgumentNullException.ThrowIfNull(pattern);
        return new([], pattern);
    }

    /// <summary>A list of names.</summary>
    /// <param name="names">The names.</param>
    public static implicit operator TargetModules(string[] names) => Names(names);

    /// <summary>A list of names.</summary>
    /// <param name="names">The names.</param>
    /// <returns>The value.</returns>
    public static TargetModules FromStringArray(string[] names) => Names(names);

    /// <inheritdoc/>
    public IEnumerator<string> GetEnumerator() => ((IEnumerable<string>)_names).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>Same pattern, or the same names in any order.</summary>
    /// <param name="other">The other value.</param>
    /// <returns>Whether both mean the same.</returns>
    public bool Equals(TargetModules? other)
        => other is not null && Pattern == other.Pattern && _names.Order(StringComparer.Ordinal).SequenceEqual(other._names.Order(StringComparer.Ordinal));

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as TargetModules);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Pattern, _names.Length);

    /// <inheritdoc/>
    public override string ToString() => Pattern ?? $"[{string.Join(", ", _names)}]";
}
