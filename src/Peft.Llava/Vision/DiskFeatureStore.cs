using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What happens with a damaged file of a <see cref="DiskFeatureStore"/>.</summary>
public enum DamagedFeatures
{
    /// <summary>It is refused by name: a disk that loses bits should be known. This is the default.</summary>
    Refuse,

    /// <summary>The tower runs again, and the file is replaced.</summary>
    Recompute,
}

/// <summary>
/// Keeps features in a folder, a safetensors file per tile, each written whole or not at all and with a checksum of its content. Runs and
/// processes may share a folder: a key says all that the content depends on.
/// </summary>
public sealed class DiskFeatureStore : IFeatureStore
{
    private const string Features = "features";
    private readonly string _folder;
    private readonly DamagedFeatures _damaged;

    /// <summary>Creates the store.</summary>
    /// <param name="folder">The folder; made when something is kept.</param>
    /// <param name="damaged">What happens with damaged files.</param>
    public DiskFeatureStore(string folder, DamagedFeatures damaged = DamagedFeatures.Refuse)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        _folder = folder;
        _damaged = damaged;
    }

    /// <summary>Damaged files met so far (with <see cref="DamagedFeatures.Recompute"/>).</summary>
    public int DamagedCount { get; private set; }

    /// <summary>The file of a key.</summary>
    /// <param name="key">The key.</param>
    public string PathOf(FeatureKey key) => Path.Combine(_folder, key.Tower[..16], key.Pixels[..2], key.Pixels + ".safetensors");

    /// <inheritdoc/>
    /// <exception cref="FeatureCacheException">The file is damaged, and such files are refused.</exception>
    public Tensor? Find(FeatureKey key)
    {
        string path = PathOf(key);
        if (!File.Exists(path)) return null;
        try
        {
            return Read(path, key);
        }
        catch (FeatureCacheException) when (_damaged == DamagedFeatures.Recompute)
        {
            DamagedCount++;
            return null;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void Keep(FeatureKey key, Tensor features)
    {
        string path = PathOf(key);
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(path, e);
        }
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { [Features] = features },
            new Dictionary<string, string> { ["tower"] = key.Tower, ["pixels"] = key.Pixels, ["content"] = Digest(features) });
    }

    private static Tensor Read(string path, FeatureKey key)
    {
        Tensor? features = null;
        try
        {
            using var reader = SafetensorsReader.Open(path);
            string? Named(string field) => reader.Metadata is { } data && data.TryGetValue(field, out string? value) ? value : null;
            if (Named("tower") != key.Tower || Named("pixels") != key.Pixels) throw new FeatureCacheException(path, "it holds the features of something else");
            features = reader.Load(Features);
            if (Named("content") != Digest(features)) throw new FeatureCacheException(path, "its content is not what was written");
            return features;
        }
        catch (Exception e) when (e is TensorFileException or TensorNotFoundException or IOException or UnauthorizedAccessException)
        {
            features?.Dispose();
            throw new FeatureCacheException(path, $"it cannot be read ({e.Message.TrimEnd('.')})", e);
        }
        catch (FeatureCacheException)
        {
            features?.Dispose();
            throw;
        }
    }

    private static string Digest(Tensor features) => TensorFingerprint.OfContent(new Dictionary<string, Tensor> { [Features] = features });
}
