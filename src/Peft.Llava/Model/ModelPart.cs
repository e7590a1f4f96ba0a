namespace Peft.Llava;

/// <summary>The parts of a LLaVA model that are frozen or trained as a whole.</summary>
[Flags]
public enum ModelPart
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The decoder layers and the last norm.</summary>
    Decoder = 1,

    /// <summary>The token embedding.</summary>
    Embedding = 2,

    /// <summary>The output head.</summary>
    Head = 4,

    /// <summary>The projector.</summary>
    Projector = 8,

    /// <summary><c>image_newline</c>.</summary>
    ImageNewline = 16,

    /// <summary>The vision tower.</summary>
    VisionTower = 32,

    /// <summary>The language model: decoder, embedding, head.</summary>
    Language = Decoder | Embedding | Head,

    /// <summary>Everything.</summary>
    All = Language | Projector | ImageNewline | VisionTower,
}
