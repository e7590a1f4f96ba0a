using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Writes files as <c>torch.save</c> does, which <c>torch.load(weights_only=True)</c> reads. For contiguous tensors the bytes are those of
/// PyTorch 2.10, but for the 40 digits of <c>.data/serialization_id</c>, which identify the writing.
/// </summary>
public static class PickleWriter
{
    /// <summary>Writes a state dict; see <see cref="AtomicFile"/> for what others see meanwhile.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="tensors">
    /// Tensors by name, of any shape, strides and device; the caller keeps them. They are written contiguous, without gradients and for the
    /// CPU; contiguous CPU tensors over the same memory (tied weights) are written once and stay tied.
    /// </param>
    /// <param name="orderedDict">Whether Python is to see <c>collections.OrderedDict</c>, as <c>state_dict()</c> gives, instead of <c>dict</c>.</param>
    /// <param name="cancellation">Ends the writing; an earlier file is as it was.</param>
    /// <exception cref="TensorWriteException">A tensor cannot be written; nothing was.</exception>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void Write(
        string path, IEnumerable<KeyValuePair<string, Tensor>> tensors, bool orderedDict = false, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        var named = NamedTensor.From(tensors);
        NamedTensor.CheckNames(path, named.Select(item => item.Name));
        var items = named.Select(item => new KeyValuePair<object, object?>(item.Name, item.Value));
        WriteObject(path, new PickleDictionary(items, orderedDict), cancellation);
    }

    /// <summary>Writes a value with tensors anywhere in it: an optimizer's state, say.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="value">
    /// What <see cref="PickleFile.ReadObject"/> gives: <see cref="PickleDictionary"/>, <see cref="PickleTuple"/>, <see cref="List{T}"/> of
    /// <see cref="object"/>, <see cref="Tensor"/>, text, numbers, <see cref="bool"/>, null. Objects met twice are written once.
    /// </param>
    /// <param name="cancellation">Ends the writing; an earlier file is as it was.</param>
    /// <exception cref="TensorWriteException">A value cannot be written; nothing was.</exception>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void WriteObject(string path, object? value, CancellationToken cancellation = default)
    {
        using var file = AtomicFile.Begin(path);
        Stage(file, value, cancellation);
        file.Commit();
    }

    /// <summary>Writes the content of a file that is committed later.</summary>
    internal static void Stage(AtomicFile file, object? value, CancellationToken cancellation)
    {
        var pickler = new Pickler(file.Path);
        byte[] pickle = pickler.Pickle(value);
        file.FillStream(stream =>
        {
            var zip = new TorchZipWriter(stream, ArchiveName(file.Path));
            zip.Add("data.pkl", pickle);
            zip.Add(".format_version", "1"u8);
            zip.Add(".storage_alignment", "64"u8);
            zip.Add("byteorder", "little"u8);
            for (int i = 0; i < pickler.Storages.Count; i++)
            {
                var tensor = pickler.Storages[i];
                zip.Add($"data/{i}", tensor.numel() * tensor.dtype.ElementSize(), write => TensorBytes.Visit(tensor, write, cancellation));
            }
            zip.Finish();
        });
    }

    // As PyTorch: the file's name without its last extension; "archive" where it has to write through a stream.
    private static string ArchiveName(string path)
    {
        string name = Path.GetFileName(path);
        int dot = name.LastIndexOf('.');
        if (dot >= 0) name = name[..dot];
        return name.Length > 0 && path.All(char.IsAscii) ? name : "archive";
    }
}
