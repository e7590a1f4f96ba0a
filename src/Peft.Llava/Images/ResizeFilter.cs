namespace Peft.Llava;

/// <summary>Pillow's resampling filters; the numbers are those of <c>resample</c> in <c>preprocessor_config.json</c>.</summary>
public enum ResizeFilter
{
    /// <summary>The nearest pixel.</summary>
    Nearest = 0,

    /// <summary>Lanczos over three lobes.</summary>
    Lanczos = 1,

    /// <summary>A triangle, widened when shrinking.</summary>
    Bilinear = 2,

    /// <summary>Cubic with a = -0.5: CLIP's and Pillow's default.</summary>
    Bicubic = 3,

    /// <summary>The plain mean of what an output pixel covers.</summary>
    Box = 4,

    /// <summary>A Hamming window over one lobe.</summary>
    Hamming = 5,
}
