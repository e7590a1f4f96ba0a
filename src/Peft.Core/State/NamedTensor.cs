using System.Text;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A tensor with the name it gets in a file.</summary>
/// <param name="Name">The name.</param>
/// <param name="Value">The tensor, of any shape, strides and device; the caller keeps it.</param>
/// <param name="DtypeName">
/// Null, or the file's dtype for bytes whose dtype TorchSharp does not know (see <see cref="TensorDtypes"/>): <c>F8_E4M3</c> for a
/// <see cref="ScalarType.Byte"/> tensor of the same shape, <c>U16</c> for one with a last dimension of 2, …
/// </param>
public readonly record struct NamedTensor(string Name, Tensor Value, string? DtypeName = null)
{
    private static readonly UTF8Encoding StrictUtf8 = new(false, throwOnInvalidBytes: true);

    /// <summary>The tensors of a dictionary, in its order.</summary>
    /// <param name="tensors">Tensors by name.</param>
    public static IReadOnlyList<NamedTensor> From(IEnumerable<KeyValuePair<string, Tensor>> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        return [.. tensors.Select(pair => new NamedTensor(pair.Key, pair.Value))];
    }

    /// <summary>Refuses names given twice, and what .NET takes for text and no other program does.</summary>
    internal static void CheckNames(string path, IEnumerable<string> names)
    {
        var seen = new HashSet<string>();
        foreach (string name in names)
        {
            if (!seen.Add(name)) throw new TensorWriteException(path, name, "is given twice", "Give every name once.");
            try
            {
                _ = StrictUtf8.GetByteCount(name);
            }
            catch (EncoderFallbackException)
            {
                throw new TensorWriteException(path, name, "has a name with half of a surrogate pair, which is no text", "Rename it.");
            }
        }
    }
}
