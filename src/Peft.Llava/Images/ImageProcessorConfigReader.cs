using System.Text.Json;

namespace Peft.Llava;

/// <summary>Reads the JSON of an image processor, collecting all faults.</summary>
internal sealed class ImageProcessorConfigReader(string source)
{
    private static readonly string[] KnownTypes =
    [
        "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor",
        "LlavaImageProcessor", "LlavaImageProcessorFast", "LlavaImageProcessorPil",
        "LlavaNextImageProcessor", "LlavaNextImageProcessorFast", "LlavaNextImageProcessorPil",
    ];

    private readonly List<string> _problems = [];

    public ImageProcessorConfig Read(JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.Object)
            throw new ImageProcessorConfigException(source, [$"It is {json.ValueKind.ToString().ToLowerInvariant()} where an object was expected."]);
        string? type = json.TryGetProperty("image_processor_type", out var t) || json.TryGetProperty("feature_extractor_type", out t) ? t.ToString() : null;
        if (type is not null && !KnownTypes.Contains(type))
            _problems.Add($"image_processor_type is {type}; only CLIP's way of processing is supported ({KnownTypes[0]} and LLaVA's variants of it).");
        if (!Flag(json, "do_center_crop", true)) _problems.Add("do_center_crop is false; the vision tower needs pictures of one size.");
        var defaults = new ImageProcessorConfig();
        var (edge, fixedSize) = Size(json);
        var config = new ImageProcessorConfig
        {
            DoResize = Flag(json, "do_resize", true),
            ShortestEdge = edge,
            FixedSize = fixedSize,
            Resample = (ResizeFilter)(Number(json, "resample") ?? (int)ResizeFilter.Bicubic),
            CropSize = Crop(json),
            RescaleFactor = Flag(json, "do_rescale", true) ? Number(json, "rescale_factor") ?? defaults.RescaleFactor : null,
            DoNormalize = Flag(json, "do_normalize", true),
            Mean = Numbers(json, "image_mean") ?? defaults.Mean,
            Std = Numbers(json, "image_std") ?? defaults.Std,
        };
        _problems.AddRange(config.Problems());
        return _problems.Count == 0 ? config : throw new ImageProcessorConfigException(source, _problems);
    }

    private (int? Edge, ImageSize? Fixed) Size(JsonElement json)
    {
        if (!json.TryGetProperty("size", out var size) || size.ValueKind == JsonValueKind.Null) return (224, null);
        if (size.ValueKind == JsonValueKind.Number) return (Whole(size, "size"), null);
        if (size.ValueKind == JsonValueKind.Object)
        {
            if (size.TryGetProperty("shortest_edge", out var edge)) return (Whole(edge, "size.shortest_edge"), null);
            if (size.TryGetProperty("height", out var height) && size.TryGetProperty("width", out var width))
                return (null, new ImageSize(Whole(width, "size.width"), Whole(height, "size.height")));
        }
        return (null, null);
    }

    private int Crop(JsonElement json)
    {
        if (!json.TryGetProperty("crop_size", out var crop) || crop.ValueKind == JsonValueKind.Null) return 224;
        if (crop.ValueKind == JsonValueKind.Number) return Whole(crop, "crop_size");
        if (crop.ValueKind == JsonValueKind.Object && crop.TryGetProperty("height", out var height) && crop.TryGetProperty("width", out var width))
        {
            int h = Whole(height, "crop_size.height"), w = Whole(width, "crop_size.width");
            if (h != w) _problems.Add($"crop_size is {w}x{h}; only squares are supported.");
            return h;
        }
        _problems.Add($"crop_size is {crop.GetRawText()}; a number, or a height and a width, was expected.");
        return 224;
    }

    private int Whole(JsonElement value, string name)
    {
        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number)) return number;
        _problems.Add($"{name} is {value.GetRawText()}; a whole number was expected.");
        return 1;
    }

    private bool Flag(JsonElement json, string name, bool absent)
    {
        if (!json.TryGetProperty(name, out var value) || value.ValueKind == JsonValueKind.Null) return absent;
        if (value.ValueKind is JsonValueKind.True or JsonValueKind.False) return value.GetBoolean();
        _problems.Add($"{name} is {value.GetRawText()}; true or false was expected.");
        return absent;
    }

    private double? Number(JsonElement json, string name)
    {
        if (!json.TryGetProperty(name, out var value) || value.ValueKind == JsonValueKind.Null) return null;
        if (value.ValueKind == JsonValueKind.Number) return value.GetDouble();
        _problems.Add($"{name} is {value.GetRawText()}; a number was expected.");
        return null;
    }

    private double[]? Numbers(JsonElement json, string name)
    {
        if (!json.TryGetProperty(name, out var value) || value.ValueKind == JsonValueKind.Null) return null;
        if (value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(v => v.ValueKind == JsonValueKind.Number))
            return [.. value.EnumerateArray().Select(v => v.GetDouble())];
        _problems.Add($"{name} is {value.GetRawText()}; three numbers were expected.");
        return null;
    }
}
