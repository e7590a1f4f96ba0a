using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The two forms of an adapter's tensor file.</summary>
public enum AdapterFileFormat
{
    /// <summary><c>adapter_model.safetensors</c>.</summary>
    Safetensors,

    /// <summary><c>adapter_model.bin</c>, for readers that know no other.</summary>
    Bin,
}

/// <summary>A folder with one adapter as PEFT writes it: <c>adapter_config.json</c> and the tensors.</summary>
public sealed class AdapterFolder : IDisposable
{
    /// <summary>The tensor file's name.</summary>
    public const string SafetensorsName = "adapter_model.safetensors";

    /// <summary>The tensor file's other name.</summary>
    public const string BinName = "adapter_model.bin";

    private AdapterFolder(string path, LoraConfig config, ITensorReader tensors)
    {
        Path = path;
        Config = config;
        Tensors = tensors;
    }

    /// <summary>The folder.</summary>
    public string Path { get; }

    /// <summary>The adapter's settings.</summary>
    public LoraConfig Config { get; }

    /// <summary>The adapter's tensors, by the names of the file.</summary>
    public ITensorReader Tensors { get; }

    /// <summary>Opens a folder.</summary>
    /// <param name="path">The folder.</param>
    /// <returns>The open folder; the caller disposes it.</returns>
    /// <exception cref="AdapterFolderException">It does not exist, lacks a file, or holds the tensors twice.</exception>
    /// <exception cref="InvalidLoraConfigException">The settings cannot be.</exception>
    /// <exception cref="UnsupportedAdapterFeatureException">The settings turn on something this library does not have.</exception>
    public static AdapterFolder Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!Directory.Exists(path)) throw new AdapterFolderException(path, "there is no such folder. Adapters are read from local folders; download it first.");
        string config = System.IO.Path.Combine(path, AdapterConfigJson.FileName);
        if (!File.Exists(config))
        {
            var below = Directory.EnumerateDirectories(path).Where(d => File.Exists(System.IO.Path.Combine(d, AdapterConfigJson.FileName)))
                .Select(d => System.IO.Path.GetFileName(d)).Order(StringComparer.Ordinal).ToList();
            throw new AdapterFolderException(path, $"there is no {AdapterConfigJson.FileName}. "
                + (below.Count > 0 ? $"The adapters are in its folders {string.Join(", ", below)}; open one of these." : "Is this an adapter folder?"));
        }
        string safetensors = System.IO.Path.Combine(path, SafetensorsName), bin = System.IO.Path.Combine(path, BinName);
        bool hasSafetensors = File.Exists(safetensors), hasBin = File.Exists(bin);
        if (hasSafetensors && hasBin) throw new AdapterFolderException(path, $"holds both {SafetensorsName} and {BinName}, which may differ. Remove the one that is not wanted.");
        if (!hasSafetensors && !hasBin) throw new AdapterFolderException(path, $"there is neither {SafetensorsName} nor {BinName}. Was it copied in full?");
        var settings = AdapterConfigJson.Read(config);
        return new AdapterFolder(path, settings, hasSafetensors ? SafetensorsReader.Open(safetensors) : PickleReader.Open(bin));
    }

    /// <summary>Writes a folder; each file is written beside its place and then put there, the settings last.</summary>
    /// <param name="path">The folder; it is made if need be.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <param name="tensors">The tensors by the names of the file; not kept and not changed.</param>
    /// <param name="format">The form of the tensor file; a file of the other form is removed.</param>
    public static void Write(
        string path, LoraConfig config, IEnumerable<KeyValuePair<string, Tensor>> tensors, AdapterFileFormat format = AdapterFileFormat.Safetensors)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        try
        {
            Directory.CreateDirectory(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(path, e);
        }
        string safetensors = System.IO.Path.Combine(path, SafetensorsName), bin = System.IO.Path.Combine(path, BinName);
        if (format == AdapterFileFormat.Safetensors) SafetensorsWriter.Write(safetensors, tensors, SafetensorsWriter.PyTorchMetadata);
        else PickleWriter.Write(bin, tensors);
        AtomicFile.WriteText(System.IO.Path.Combine(path, AdapterConfigJson.FileName), AdapterConfigJson.Write(config));
        File.Delete(format == AdapterFileFormat.Safetensors ? bin : safetensors);
    }

    /// <inheritdoc/>
    public void Dispose() => Tensors.Dispose();
}
