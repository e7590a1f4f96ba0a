namespace Peft.Llava;

/// <summary>What is done to a picture that is not square (LLaVA's <c>image_aspect_ratio</c>).</summary>
public enum AspectPolicy
{
    /// <summary>Shortest edge, then the centre is cut out: CLIP's own way.</summary>
    Square,

    /// <summary>Put on a square of the mean colour first, so that nothing is lost (LLaVA 1.5).</summary>
    Pad,

    /// <summary>The whole picture squashed to one tile, then tiles of the best-fitting resolution (LLaVA 1.6).</summary>
    AnyResolution,
}
