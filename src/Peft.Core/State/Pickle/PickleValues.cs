using System.Collections;
using System.Diagnostics.CodeAnalysis;

namespace Peft.Core;

/// <summary>
/// A Python <c>dict</c> or <c>OrderedDict</c> of a pickle, in its order. Values are <c>null</c>, <see cref="bool"/>, <see cref="long"/>,
/// <see cref="System.Numerics.BigInteger"/> (beyond 64 bits), <see cref="double"/>, <see cref="string"/>, arrays of <see cref="byte"/>,
/// <see cref="PickledTensor"/>, <see cref="List{T}"/> of such values, <see cref="PickleTuple"/> and <see cref="PickleDictionary"/>.
/// </summary>
public sealed class PickleDictionary : IReadOnlyDictionary<object, object?>
{
    private readonly OrderedDictionary<object, object?> _items = [];

    /// <summary>Creates a dictionary.</summary>
    /// <param name="items">Keys (text, numbers, tuples) and values.</param>
    /// <param name="isOrderedDict">Whether Python is to see <c>collections.OrderedDict</c>.</param>
    public PickleDictionary(IEnumerable<KeyValuePair<object, object?>>? items = null, bool isOrderedDict = false)
    {
        IsOrderedDict = isOrderedDict;
        foreach (var (key, value) in items ?? []) _items[key] = value;
    }

    /// <summary>Whether Python sees <c>collections.OrderedDict</c>.</summary>
    public bool IsOrderedDict { get; }

    /// <summary>The attributes of an <c>OrderedDict</c> (a state dict carries <c>_metadata</c>), or null.</summary>
    public PickleDictionary? Attributes { get; internal set; }

    /// <inheritdoc/>
    public object? this[object key] => _items[key];

    /// <inheritdoc/>
    public IEnumerable<object> Keys => _items.Keys;

    /// <inheritdoc/>
    public IEnumerable<object?> Values => _items.Values;

    /// <inheritdoc/>
    public int Count => _items.Count;

    /// <inheritdoc/>
    public bool ContainsKey(object key) => _items.ContainsKey(key);

    /// <inheritdoc/>
    public bool TryGetValue(object key, [MaybeNullWhen(false)] out object? value) => _items.TryGetValue(key, out value);

    /// <inheritdoc/>
    public IEnumerator<KeyValuePair<object, object?>> GetEnumerator() => _items.GetEnumerator();

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    internal void Set(object key, object? value) => _items[key] = value;
}

/// <summary>A Python tuple of a pickle; equal to another with equal items.</summary>
/// <param name="items">The items, of the kinds that <see cref="PickleDictionary"/> lists.</param>
public sealed class PickleTuple(IReadOnlyList<object?> items) : IReadOnlyList<object?>, IEquatable<PickleTuple>
{
    // Tuples in tuples in tuples, shared, could take for ever to hash: a file may be hostile, and a key of few items is enough.
    private const int HashedItems = 4;

    /// <inheritdoc/>
    public object? this[int index] => items[index];

    /// <inheritdoc/>
    public int Count => items.Count;

    /// <inheritdoc/>
    public IEnumerator<object?> GetEnumerator() => items.GetEnumerator();

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <inheritdoc/>
    public bool Equals(PickleTuple? other) => other is not null && (ReferenceEquals(this, other) || items.SequenceEqual(other));

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as PickleTuple);

    /// <inheritdoc/>
    public override int GetHashCode()
    {
        var hash = default(HashCode);
        hash.Add(items.Count);
        foreach (object? item in items.Take(HashedItems)) hash.Add(item is PickleTuple tuple ? tuple.Count : item?.GetHashCode() ?? 0);
        return hash.ToHashCode();
    }
}
