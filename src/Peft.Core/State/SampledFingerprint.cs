using System.Security.Cryptography;
using System.Text;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Tells a base from another one at little cost: SHA-256 over names, dtypes and shapes of all tensors, and over the bytes of a few places of each.
/// </summary>
/// <remarks>
/// Of a tensor up to <see cref="SampledBytes"/> everything counts; of a larger one its beginning, middle and end, a third of that each. A training of the weights
/// changes nearly every element and is seen; a change of single elements elsewhere is not: <see cref="TensorFingerprint.OfContent(ITensorReader, CancellationToken)"/>
/// sees all.
/// </remarks>
public sealed class SampledFingerprint : IDisposable
{
    /// <summary>The bytes that are read of each tensor at most.</summary>
    public const int SampledBytes = 3 * Piece;

    private const int Piece = 4096;

    private readonly SortedDictionary<string, byte[]> _tensors = new(StringComparer.Ordinal);
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    /// <summary>Takes in a tensor; the order of the calls does not matter.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="tensor">The tensor, of any dtype and device; only the sampled places are read. It stays the caller's.</param>
    public void Add(string name, Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(name);
        ArgumentNullException.ThrowIfNull(tensor);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        _hash.AppendData(Encoding.UTF8.GetBytes($"{TensorDtypes.NameOf(tensor.dtype) ?? tensor.dtype.ToString()} ({string.Join(',', tensor.shape)})\n"));
        long count = tensor.numel(), piece = Piece / tensor.dtype.ElementSize();
        var flat = tensor.detach().reshape(-1);
        if (count <= 3 * piece) Append(flat);
        else
            foreach (long begin in new[] { 0, (count - piece) / 2, count - piece }) Append(flat.narrow(0, begin, piece));
        _tensors[name] = _hash.GetHashAndReset();
    }

    /// <summary>The fingerprint of what was taken in.</summary>
    /// <returns>64 hexadecimal digits.</returns>
    public string Digest()
    {
        foreach (var (name, hash) in _tensors)
        {
            _hash.AppendData(Encoding.UTF8.GetBytes($"{name.Length}:{name}\n"));
            _hash.AppendData(hash);
        }
        return Convert.ToHexStringLower(_hash.GetHashAndReset());
    }

    /// <summary>Releases the hash.</summary>
    public void Dispose() => _hash.Dispose();

    private void Append(Tensor part) => TensorBytes.Visit(part, _hash.AppendData, CancellationToken.None);
}
