using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A tensor of a pickle that has not been read yet: a view into one of the file's storages.</summary>
public sealed class PickledTensor
{
    private readonly PickleFile _file;

    internal PickledTensor(PickleFile file, PickleStorage storage, long offset, long[] shape, long[] strides, bool requiresGrad)
    {
        _file = file;
        Storage = storage;
        Offset = offset;
        Shape = shape;
        Strides = strides;
        RequiresGrad = requiresGrad;
    }

    /// <summary>The key of the storage; tensors with the same key share memory in Python.</summary>
    public string StorageKey => Storage.Key;

    /// <summary>The dtype's name in safetensors' words; see <see cref="TensorDtypes"/> for what it becomes in memory.</summary>
    public string DtypeName => Storage.DtypeName;

    /// <summary>The first element's place in the storage, in elements.</summary>
    public long Offset { get; }

    /// <summary>The shape in the file.</summary>
    public IReadOnlyList<long> Shape { get; }

    /// <summary>The strides, in elements.</summary>
    public IReadOnlyList<long> Strides { get; }

    /// <summary>Whether it required gradients when it was saved. What <see cref="Load"/> and <see cref="Map"/> give never does.</summary>
    public bool RequiresGrad { get; }

    internal PickleStorage Storage { get; }

    /// <summary>The number of elements.</summary>
    public long Count => Shape.Aggregate(1L, (product, side) => product * side);

    internal bool IsContiguous
    {
        get
        {
            long step = 1;
            for (int i = Shape.Count - 1; i >= 0; i--)
            {
                if (Shape[i] != 1 && Strides[i] != step) return false;
                step *= Shape[i];
            }
            return true;
        }
    }

    /// <summary>Reads the tensor into memory of its own, after checking the storage's checksum.</summary>
    /// <param name="cancellation">Ends the reading.</param>
    /// <returns>A fresh contiguous CPU tensor, detached from any dispose scope; the caller disposes it.</returns>
    /// <exception cref="PickleFormatException">The storage's bytes do not match their checksum.</exception>
    public Tensor Load(CancellationToken cancellation = default) => _file.Load(this, cancellation);

    /// <summary>The tensor, memory-mapped copy-on-write where its bytes stand uncompressed and aligned; otherwise as <see cref="Load"/>.</summary>
    /// <returns>A CPU tensor with the strides of the file, detached from any dispose scope; the caller disposes it.</returns>
    /// <exception cref="TensorFileChangedException">The file was changed after it was opened.</exception>
    public Tensor Map() => _file.Map(this);
}

/// <summary>A storage that a pickle refers to.</summary>
internal sealed record PickleStorage(string Key, string DtypeName, string Location, long Count, ZipRecord Record);
