using Peft.Core;

namespace Peft.Llava;

/// <summary>The image processor's settings cannot be used.</summary>
public sealed class ImageProcessorConfigException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="source">The file, or what else the settings came from.</param>
    /// <param name="problems">All that is wrong.</param>
    public ImageProcessorConfigException(string source, IReadOnlyList<string> problems)
        : base($"{source}: the image processor's settings cannot be used.\n  " + string.Join("\n  ", problems)
            + "\nUse the preprocessor_config.json of the checkpoint's own CLIP vision tower.")
    {
        SourceFile = source;
        Problems = problems;
    }

    /// <summary>The file, or what else the settings came from.</summary>
    public string SourceFile { get; }

    /// <summary>All that is wrong.</summary>
    public IReadOnlyList<string> Problems { get; }
}
