using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Where one tensor stands in a file, without its data.</summary>
/// <param name="Name">The tensor's name in the file.</param>
/// <param name="Dtype">Its dtype in memory. Dtypes that TorchSharp does not know are kept as bytes: see <see cref="TensorDtypes"/>.</param>
/// <param name="Shape">Its shape in memory.</param>
/// <param name="DtypeName">The dtype's name in safetensors' words: F32, BF16, F8_E4M3, …</param>
public sealed record TensorEntry(string Name, ScalarType Dtype, IReadOnlyList<long> Shape, string DtypeName)
{
    /// <summary>Number of elements.</summary>
    public long Count => Shape.Aggregate(1L, (product, side) => product * side);
}

/// <summary>Named tensors in a file or a set of files, read one at a time.</summary>
public interface ITensorReader : IDisposable
{
    /// <summary>What the messages call the source: a path.</summary>
    string Source { get; }

    /// <summary>All tensors by name, in the order of the file.</summary>
    IReadOnlyDictionary<string, TensorEntry> Entries { get; }

    /// <summary>Reads one tensor into memory of its own.</summary>
    /// <param name="name">A name of <see cref="Entries"/>.</param>
    /// <returns>A fresh tensor on the CPU, detached from any dispose scope; the caller disposes it.</returns>
    /// <exception cref="TensorNotFoundException">No such tensor.</exception>
    Tensor Load(string name);

    /// <summary>
    /// One tensor, memory-mapped copy-on-write where the format allows it (the file is never changed; pages are read on first use and
    /// shared between processes), otherwise as <see cref="Load"/>. The tensor stays valid after the reader is disposed. While it lives the
    /// file must not be cut or written into; replacing it by another file of the same name, as <see cref="AtomicFile"/> does, is safe.
    /// </summary>
    /// <param name="name">A name of <see cref="Entries"/>.</param>
    /// <returns>A tensor on the CPU, detached from any dispose scope; the caller disposes it.</returns>
    /// <exception cref="TensorNotFoundException">No such tensor.</exception>
    Tensor Map(string name);
}
