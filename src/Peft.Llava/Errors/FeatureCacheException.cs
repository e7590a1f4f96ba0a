using Peft.Core;

namespace Peft.Llava;

/// <summary>A file of cached image features is damaged, or is not what its name says.</summary>
public sealed class FeatureCacheException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="path">The file.</param>
    /// <param name="problem">What is wrong, as half a sentence.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public FeatureCacheException(string path, string problem, Exception? innerException = null)
        : base($"{path}: {problem}. Delete the file, or let damaged ones be made again with {nameof(DamagedFeatures)}.{nameof(DamagedFeatures.Recompute)}.",
            innerException)
        => Path = path;

    /// <summary>The file.</summary>
    public string Path { get; }
}
