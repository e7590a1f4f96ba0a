using System.Globalization;

namespace Peft.Core;

/// <summary>A tensor has another shape than the place it was meant for.</summary>
public sealed class ShapeMismatchException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The place: a module or tensor name.</param>
    /// <param name="expected">The shape wanted; a negative size stands for any.</param>
    /// <param name="actual">The shape found.</param>
    public ShapeMismatchException(string name, IReadOnlyList<long> expected, IReadOnlyList<long> actual)
        : base($"{name}: expected shape ({string.Join(", ", expected.Select(size => size < 0 ? "?" : size.ToString(CultureInfo.InvariantCulture)))}), got ({string.Join(", ", actual)}). "
            + "Check that the tensor belongs to this layer of this model.")
    {
        Name = name;
        Expected = expected;
        Actual = actual;
    }

    /// <summary>The place: a module or tensor name.</summary>
    public string Name { get; }

    /// <summary>The shape wanted.</summary>
    public IReadOnlyList<long> Expected { get; }

    /// <summary>The shape found.</summary>
    public IReadOnlyList<long> Actual { get; }
}
