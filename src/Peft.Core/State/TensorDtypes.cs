using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The dtypes of tensor files and what they become in memory. Dtypes that TorchSharp has no word for are kept as bytes, so that they
/// pass through unharmed: one-byte ones (8-bit floats) as a <see cref="ScalarType.Byte"/> tensor of the same shape, wider ones
/// (U16, U32, U64) with the bytes of an element, little-endian, as a further last dimension.
/// </summary>
public static class TensorDtypes
{
    // The rank is the place in the format's own list, which is the order (backwards) in which a file's tensors are laid out.
    private static readonly (string Name, ScalarType Type, int Size, int Rank)[] Table =
    [
        ("BOOL", ScalarType.Bool, 1, 0),
        ("U8", ScalarType.Byte, 1, 1),
        ("I8", ScalarType.Int8, 1, 2),
        ("F8_E5M2", ScalarType.Byte, 1, 3),
        ("F8_E4M3", ScalarType.Byte, 1, 4),
        ("F8_E8M0", ScalarType.Byte, 1, 5),
        ("F8_E4M3FNUZ", ScalarType.Byte, 1, 6),
        ("F8_E5M2FNUZ", ScalarType.Byte, 1, 7),
        ("I16", ScalarType.Int16, 2, 8),
        ("U16", ScalarType.Byte, 2, 9),
        ("F16", ScalarType.Float16, 2, 10),
        ("BF16", ScalarType.BFloat16, 2, 11),
        ("I32", ScalarType.Int32, 4, 12),
        ("U32", ScalarType.Byte, 4, 13),
        ("F32", ScalarType.Float32, 4, 14),
        ("C64", ScalarType.ComplexFloat32, 8, 15),
        ("F64", ScalarType.Float64, 8, 16),
        ("I64", ScalarType.Int64, 8, 17),
        ("U64", ScalarType.Byte, 8, 18),
    ];

    private static readonly Dictionary<string, (string Name, ScalarType Type, int Size, int Rank)> ByName = Table.ToDictionary(row => row.Name);

    /// <summary>All names, in the format's order.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. Table.Select(row => row.Name)];

    /// <summary>Whether a name is known.</summary>
    /// <param name="name">A dtype in safetensors' words.</param>
    public static bool IsKnown(string name) => ByName.ContainsKey(name);

    /// <summary>The dtype in memory.</summary>
    /// <param name="name">A known dtype in safetensors' words.</param>
    public static ScalarType InMemory(string name) => ByName[name].Type;

    /// <summary>Bytes of one element in the file.</summary>
    /// <param name="name">A known dtype in safetensors' words.</param>
    public static int SizeInFile(string name) => ByName[name].Size;

    /// <summary>The name in safetensors' words, or null where the format has none (128-bit complex).</summary>
    /// <param name="type">A dtype.</param>
    public static string? NameOf(ScalarType type)
        => type == ScalarType.Byte ? "U8" : Table.FirstOrDefault(row => row.Type == type).Name;

    /// <summary>The shape of a tensor in memory, given that in the file.</summary>
    /// <param name="name">A known dtype in safetensors' words.</param>
    /// <param name="shape">The shape in the file.</param>
    public static long[] ShapeInMemory(string name, IReadOnlyList<long> shape)
    {
        ArgumentNullException.ThrowIfNull(shape);
        var row = ByName[name];
        return row.Type == ScalarType.Byte && row.Size > 1 ? [.. shape, row.Size] : [.. shape];
    }

    internal static int Rank(string name) => ByName[name].Rank;
}
