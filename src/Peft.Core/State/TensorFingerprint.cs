using System.Security.Cryptography;
using System.Text;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Tells whether two sets of tensors are the same, whatever files and formats they are in: SHA-256 over names, dtypes and shapes in the
/// order of the names, and over the contents where asked.
/// </summary>
public static class TensorFingerprint
{
    /// <summary>The fingerprint of names, dtypes and shapes: cheap, and enough to tell models of different kinds apart.</summary>
    /// <param name="reader">The tensors.</param>
    /// <returns>64 hexadecimal digits.</returns>
    public static string OfIndex(ITensorReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        return Compute(reader.Entries.Values.Select(entry => (entry.Name, entry.DtypeName, entry.Shape)), content: null);
    }

    /// <summary>The fingerprint of everything: reads all the bytes.</summary>
    /// <param name="reader">The tensors.</param>
    /// <param name="cancellation">Ends the reading.</param>
    /// <returns>64 hexadecimal digits.</returns>
    public static string OfContent(ITensorReader reader, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(reader);
        return Compute(reader.Entries.Values.Select(entry => (entry.Name, entry.DtypeName, entry.Shape)), (name, hash) =>
        {
            using var tensor = reader.Map(name);
            TensorBytes.Visit(tensor, hash.AppendData, cancellation);
        });
    }

    /// <summary>The fingerprint of everything, for tensors in memory; equal to that of a file written from them.</summary>
    /// <param name="tensors">The tensors; they stay the caller's.</param>
    /// <param name="cancellation">Ends the reading.</param>
    /// <returns>64 hexadecimal digits.</returns>
    public static string OfContent(IReadOnlyDictionary<string, Tensor> tensors, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        return Compute(
            tensors.Select(pair => (pair.Key, TensorDtypes.NameOf(pair.Value.dtype) ?? pair.Value.dtype.ToString(), (IReadOnlyList<long>)pair.Value.shape)),
            (name, hash) => TensorBytes.Visit(tensors[name], hash.AppendData, cancellation));
    }

    private static string Compute(IEnumerable<(string Name, string Dtype, IReadOnlyList<long> Shape)> entries, Action<string, IncrementalHash>? content)
    {
        using var all = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var one = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var (name, dtype, shape) in entries.OrderBy(entry => entry.Name, StringComparer.Ordinal))
        {
            all.AppendData(Encoding.UTF8.GetBytes($"{name.Length}:{name} {dtype} ({string.Join(',', shape)})\n"));
            if (content is null) continue;
            content(name, one);
            all.AppendData(one.GetHashAndReset());
        }
        return Convert.ToHexStringLower(all.GetHashAndReset());
    }
}
