using System.Text.Json;
using System.Text.Json.Nodes;

namespace Peft.Llava;

/// <summary>CLIP's image settings: the fields of <c>preprocessor_config.json</c> that CLIPImageProcessor acts on.</summary>
public sealed record ImageProcessorConfig
{
    /// <summary>Whether pictures are resized at all (<c>do_resize</c>).</summary>
    public bool DoResize { get; init; } = true;

    /// <summary>The short side after the resize (<c>size.shortest_edge</c>); null if <see cref="FixedSize"/> rules.</summary>
    public int? ShortestEdge { get; init; } = 224;

    /// <summary>The exact size after the resize (<c>size.width</c>, <c>size.height</c>), instead of a shortest edge.</summary>
    public ImageSize? FixedSize { get; init; }

    /// <summary>The filter (<c>resample</c>).</summary>
    public ResizeFilter Resample { get; init; } = ResizeFilter.Bicubic;

    /// <summary>The side of the centre that is cut out, and of the result (<c>crop_size</c>).</summary>
    public int CropSize { get; init; } = 224;

    /// <summary>What levels are multiplied by (<c>rescale_factor</c>); null for <c>do_rescale</c> false.</summary>
    public double? RescaleFactor { get; init; } = 1 / 255.0;

    /// <summary>Whether mean and deviation are applied (<c>do_normalize</c>).</summary>
    public bool DoNormalize { get; init; } = true;

    /// <summary>Mean per channel, R, G, B (<c>image_mean</c>).</summary>
    public IReadOnlyList<double> Mean { get; init; } = [0.48145466, 0.4578275, 0.40821073];

    /// <summary>Deviation per channel, R, G, B (<c>image_std</c>).</summary>
    public IReadOnlyList<double> Std { get; init; } = [0.26862954, 0.26130258, 0.27577711];

    /// <summary>OpenAI's CLIP at an input size: 224, or 336 for ViT-L/14-336.</summary>
    /// <param name="size">Shortest edge and crop.</param>
    public static ImageProcessorConfig Clip(int size) => new() { ShortestEdge = size, CropSize = size };

    /// <summary>Reads <c>preprocessor_config.json</c>, or the <c>image_processor</c> part of a <c>processor_config.json</c>.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="ImageProcessorConfigException">The file is no such settings, or they ask for something CLIP's processor does not do.</exception>
    public static ImageProcessorConfig Load(string path)
    {
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(path));
            return FromJson(json.RootElement, path);
        }
        catch (JsonException error)
        {
            throw new ImageProcessorConfigException(path, [$"It is no JSON: {error.Message}"]);
        }
    }

    /// <summary>Reads the settings from JSON.</summary>
    /// <param name="json">The object.</param>
    /// <param name="source">Its name in error texts.</param>
    /// <exception cref="ImageProcessorConfigException">See <see cref="Load"/>.</exception>
    public static ImageProcessorConfig FromJson(JsonElement json, string source)
    {
        if (json.ValueKind == JsonValueKind.Object && json.TryGetProperty("image_processor", out var part)) json = part;
        return new ImageProcessorConfigReader(source).Read(json);
    }

    /// <summary>The settings as CLIPImageProcessor of transformers 4.37 writes them (sorted names).</summary>
    public JsonObject ToJson() => new()
    {
        ["crop_size"] = new JsonObject { ["height"] = CropSize, ["width"] = CropSize },
        ["do_center_crop"] = true,
        ["do_convert_rgb"] = true,
        ["do_normalize"] = DoNormalize,
        ["do_rescale"] = RescaleFactor is not null,
        ["do_resize"] = DoResize,
        ["image_mean"] = new JsonArray([.. Mean.Select(m => JsonValue.Create(m))]),
        ["image_processor_type"] = "CLIPImageProcessor",
        ["image_std"] = new JsonArray([.. Std.Select(s => JsonValue.Create(s))]),
        ["resample"] = (int)Resample,
        ["rescale_factor"] = RescaleFactor ?? 1 / 255.0,
        ["size"] = FixedSize is { } fixedSize
            ? new JsonObject { ["height"] = fixedSize.Height, ["width"] = fixedSize.Width }
            : new JsonObject { ["shortest_edge"] = ShortestEdge },
    };

    /// <summary>Everything that makes these settings unusable; empty if they are fine.</summary>
    public IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        if (CropSize < 1) problems.Add($"crop_size must be at least 1, got {CropSize}.");
        if (DoResize && ShortestEdge is null == FixedSize is null) problems.Add("size must be either a shortest_edge or a height and a width.");
        if (ShortestEdge < 1) problems.Add($"size.shortest_edge must be at least 1, got {ShortestEdge}.");
        if (FixedSize is { } s && (s.Width < 1 || s.Height < 1)) problems.Add($"size must be at least 1x1, got {s}.");
        if (!Enum.IsDefined(Resample)) problems.Add($"resample must be 0 to 5 (Pillow's numbers), got {(int)Resample}.");
        if (RescaleFactor is { } f && !double.IsFinite(f)) problems.Add($"rescale_factor must be a number, got {f}.");
        if (Mean.Count != 3 || Mean.Any(m => !double.IsFinite(m))) problems.Add($"image_mean must be three numbers, got [{string.Join(", ", Mean)}].");
        if (Std.Count != 3 || Std.Any(d => !(d > 0) || !double.IsFinite(d))) problems.Add($"image_std must be three numbers above 0, got [{string.Join(", ", Std)}].");
        return problems;
    }
}
