using Peft.Core;

namespace Peft.Llava;

/// <summary><c>image_grid_pinpoints</c> cannot be read, or is empty.</summary>
public sealed class GridPinpointsException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="text">The text found.</param>
    /// <param name="reason">What is wrong with it, as half a sentence.</param>
    public GridPinpointsException(string text, string reason)
        : base($"image_grid_pinpoints '{text}' cannot be used: {reason}. Write every resolution out, width first, "
            + "for example [[336, 672], [672, 336], [672, 672]], in the checkpoint's config.json or in the options.")
    {
        Text = text;
        Reason = reason;
    }

    /// <summary>The text found.</summary>
    public string Text { get; }

    /// <summary>What is wrong with it.</summary>
    public string Reason { get; }
}
