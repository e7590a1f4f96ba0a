using System.Text.Json;
using System.Text.Json.Nodes;
using TorchSharp;

namespace Peft.Llava;

/// <summary>Reads the <c>config.json</c> of all layouts into <see cref="LlavaConfig"/>. Absent fields have transformers' defaults.</summary>
internal static class LlavaConfigJson
{
    private static readonly IReadOnlyList<ImageSize> DefaultNextPinpoints = [new(672, 336), new(336, 672), new(672, 672), new(336, 1008), new(1008, 336)];

    public static LlavaConfig Load(string folder)
    {
        if (!Directory.Exists(folder) && !File.Exists(folder)) throw new CheckpointException(folder, "there is no such folder", HubName.NextStep(folder));
        string path = Directory.Exists(folder) ? Path.Combine(folder, "config.json") : folder;
        return Parse(ReadObject(path), path);
    }

    /// <summary>Sizes of a tower from the <c>config.json</c> of its folder, or such a file itself (a CLIP vision model, or a full CLIP with a nested <c>vision_config</c>).</summary>
    public static VisionConfig LoadVision(string folder)
    {
        if (!Directory.Exists(folder) && !File.Exists(folder)) throw new VisionTowerNotFoundException("--vision_tower", folder, [Path.GetFullPath(folder)]);
        string path = File.Exists(folder) ? folder : Path.Combine(folder, "config.json");
        var problems = new List<string>();
        var fields = new JsonFields(ReadObject(path), problems);
        var vision = Vision(fields.Has("vision_config") ? fields.Child("vision_config") : fields);
        if (problems.Count > 0) throw new InvalidConfigurationException(path, problems);
        return vision;
    }

    public static LlavaConfig Parse(JsonObject document, string source)
    {
        var problems = new List<string>();
        var fields = new JsonFields(document, problems);
        string? modelType = fields.Text("model_type");
        var config = modelType switch
        {
            "llava" when fields.Has("text_config") || fields.Has("vision_config") => HuggingFace(fields, CheckpointLayout.HuggingFace),
            "llava_next" => HuggingFace(fields, CheckpointLayout.HuggingFaceNext),
            "llava" or "llava_llama" => Original(fields),
            "llama" when fields.Has("mm_vision_tower") => Original(fields),
            "llama" => new LlavaConfig(document, source) { Layout = CheckpointLayout.Llama },
            _ => Unknown(),
        };
        config = config with
        {
            Language = Language(config.HasVision && config.Layout != CheckpointLayout.Original ? fields.Child("text_config") : fields, fields),
            StoredDtype = Dtype(fields.Text("dtype") ?? fields.Text("torch_dtype")
                ?? (fields.Has("text_config") ? fields.Child("text_config").Text("dtype") ?? fields.Child("text_config").Text("torch_dtype") : null)),
        };
        if (problems.Count > 0) throw new InvalidConfigurationException(source, [.. problems.Distinct()]);
        return config;

        LlavaConfig Unknown()
        {
            problems.Add($"model_type {(modelType is null ? "is missing" : $"'{modelType}' is not supported")}; "
                + "llava_llama, llava, llava_next and llama are.");
            return new LlavaConfig(document, source);
        }

        LlavaConfig Original(JsonFields f)
        {
            string? select = f.Text("mm_vision_select_feature");
            f.Require(select is null or "patch" or "cls_patch", $"mm_vision_select_feature '{select}' is not known; patch and cls_patch are.");
            string? projector = f.Text("mm_projector_type") ?? "linear";
            RequireProjector(f, projector);
            string? merge = f.Text("mm_patch_merge_type");
            f.Require(merge is null or "flat" or "spatial" or "spatial_unpad",
                $"mm_patch_merge_type '{merge}' is not known; flat, spatial and spatial_unpad are.");
            string? side = f.Text("tokenizer_padding_side");
            f.Require(side is null or "left" or "right", $"tokenizer_padding_side '{side}' is not known; left and right are.");
            return new LlavaConfig(document, source)
            {
                Layout = CheckpointLayout.Original,
                HasVision = f.Text("mm_vision_tower") is not null,
                VisionTowerName = f.Text("mm_vision_tower"),
                Projector = new ProjectorType(projector),
                ProjectorInputSize = f.Int("mm_hidden_size", 0),
                FeatureLayer = new FeatureLayer(f.Int("mm_vision_select_layer", -2)),
                KeepClassToken = select == "cls_patch",
                PatchMerge = merge switch { "spatial" => PatchMergeType.Spatial, "spatial_unpad" => PatchMergeType.SpatialUnpad, _ => PatchMergeType.Flat },
                ImageAspectRatio = f.Text("image_aspect_ratio") ?? "square",
                GridPinpoints = Pinpoints(f, document),
                PaddingSide = side == "left" ? PaddingSide.Left : PaddingSide.Right,
                MaxLength = f.OptionalInt("tokenizer_model_max_length"),
                UnfreezeVisionTower = f.Bool("unfreeze_mm_vision_tower"),
                TuneProjectorOnly = f.Bool("tune_mm_mlp_adapter"),
                UseImageStartEnd = f.Bool("mm_use_im_start_end"),
                UseImagePatchToken = f.Bool("mm_use_im_patch_token"),
            };
        }

        LlavaConfig HuggingFace(JsonFields f, CheckpointLayout layout)
        {
            var vision = Vision(f.Child("vision_config"));
            string select = f.Text("vision_feature_select_strategy") ?? "default";
            f.Require(select is "default" or "full", $"vision_feature_select_strategy '{select}' is not known; default and full are.");
            string act = f.Text("projector_hidden_act") ?? "gelu";
            f.Require(act == "gelu", $"projector_hidden_act '{act}' is not supported; gelu is.");
            bool next = layout == CheckpointLayout.HuggingFaceNext;
            return new LlavaConfig(document, source)
            {
                Layout = layout,
                HasVision = true,
                Vision = vision,
                Projector = ProjectorType.Mlp2xGelu,
                ProjectorInputSize = vision.HiddenSize,
                ProjectorBias = f.Bool("multimodal_projector_bias", true),
                FeatureLayer = new FeatureLayer(f.Int("vision_feature_layer", -2)),
                KeepClassToken = select == "full",
                PatchMerge = next ? PatchMergeType.SpatialUnpad : PatchMergeType.Flat,
                ImageAspectRatio = next ? "anyres" : "square",
                GridPinpoints = !next ? [] : f.Has("image_grid_pinpoints")
                    ? [.. f.Pairs("image_grid_pinpoints").Select(p => new ImageSize(p.Second, p.First))] : DefaultNextPinpoints,
                ImageTokenId = f.OptionalInt("image_token_index") ?? f.OptionalInt("image_token_id") ?? 32000,
            };
        }
    }

    private static IReadOnlyList<ImageSize> Pinpoints(JsonFields f, JsonObject document)
    {
        // LLaVA's training flag leaves a list in the file, some checkpoints hold the same list as Python text.
        if (document["image_grid_pinpoints"] is not JsonValue value || !value.TryGetValue(out string? text))
            return [.. f.Pairs("image_grid_pinpoints").Select(p => new ImageSize(p.First, p.Second))];
        try
        {
            return GridPinpoints.Parse(text);
        }
        catch (GridPinpointsException e)
        {
            f.Require(false, e.Message);
            return [];
        }
    }

    private static void RequireProjector(JsonFields f, string projector)
        => f.Require(new ProjectorType(projector).LinearCount is not null,
            $"mm_projector_type '{projector}' is not known; linear, mlpNx_gelu (mlp2x_gelu, …) and identity are.");

    private static LanguageConfig Language(JsonFields f, JsonFields top)
    {
        string act = f.Text("hidden_act") ?? "silu";
        f.Require(act == "silu", $"{f.Name("hidden_act")} '{act}' is not supported; silu is.");
        int hidden = Positive("hidden_size", 4096), heads = Positive("num_attention_heads", 32);
        int keyValueHeads = Positive("num_key_value_heads", heads);
        f.Require(heads % keyValueHeads == 0, $"{f.Name("num_attention_heads")} {heads} is not a multiple of num_key_value_heads {keyValueHeads}.");
        int headDim = f.OptionalInt("head_dim") ?? hidden / heads;
        f.Require(headDim > 0 && headDim % 2 == 0, $"{f.Name("head_dim")} {headDim} must be even, for the rotary embedding.");
        var (theta, scaling) = Rope(f);
        RequireFullAttention(f);
        return new LanguageConfig
        {
            VocabularySize = Positive("vocab_size", 32000),
            HiddenSize = hidden,
            IntermediateSize = Positive("intermediate_size", 11008),
            LayerCount = Positive("num_hidden_layers", 32),
            HeadCount = heads,
            KeyValueHeadCount = keyValueHeads,
            HeadDim = headDim,
            MaxPositions = Positive("max_position_embeddings", 2048),
            NormEpsilon = f.Double("rms_norm_eps", 1e-6),
            RopeTheta = theta,
            RopeScaling = scaling,
            AttentionBias = f.Bool("attention_bias"),
            MlpBias = f.Bool("mlp_bias"),
            TieWordEmbeddings = f.Has("tie_word_embeddings") ? f.Bool("tie_word_embeddings") : top.Bool("tie_word_embeddings"),
            BosTokenId = f.Int("bos_token_id", 1),
            EosTokenIds = f.Ints("eos_token_id", [2]),
            PadTokenId = f.OptionalInt("pad_token_id") ?? top.OptionalInt("pad_token_id"),
        };

        int Positive(string name, int fallback)
        {
            int value = f.Int(name, fallback);
            f.Require(value > 0, $"{f.Name(name)} must be positive, is {value}.");
            return Math.Max(value, 1);
        }
    }

    // A window that is never left changes nothing. A Mistral configuration that is silent has transformers' default.
    private static void RequireFullAttention(JsonFields f)
    {
        const string name = "sliding_window";
        if (f.Present("use_sliding_window") && !f.Bool("use_sliding_window")) return;
        int? window = f.Present(name) ? f.OptionalInt(name) : f.Text("model_type") == "mistral" ? 4096 : null;
        f.Require(window is null || window >= f.Int("max_position_embeddings", 2048),
            $"{f.Name(name)} {window} is not supported: each token here sees all before it. If no sequence is longer than that, write null, otherwise take another model.");
    }

    private static (double Theta, RopeScaling? Scaling) Rope(JsonFields f)
    {
        var rope = f.Child(f.Has("rope_parameters") ? "rope_parameters" : "rope_scaling");
        double theta = rope.Double("rope_theta", f.Double("rope_theta", 10000));
        f.Require(theta > 0, $"{f.Name("rope_theta")} must be positive, is {theta}.");
        string kind = rope.Text("rope_type") ?? rope.Text("type") ?? "default";
        if (kind == "default") return (theta, null);
        double factor = rope.Double("factor", double.NaN);
        f.Require(factor >= 1, $"{rope.Name("factor")} must be a number of at least 1.");
        f.Require(kind is "linear" or "dynamic", $"{rope.Name("rope_type")} '{kind}' is not supported; default, linear and dynamic are.");
        return (theta, new RopeScaling(kind == "dynamic" ? RopeScalingKind.Dynamic : RopeScalingKind.Linear, factor));
    }

    private static VisionConfig Vision(JsonFields f)
    {
        string act = f.Text("hidden_act") ?? "quick_gelu";
        f.Require(act == "quick_gelu", $"{f.Name("hidden_act")} '{act}' is not supported for the vision tower; quick_gelu is.");
        var vision = new VisionConfig
        {
            HiddenSize = f.Int("hidden_size", 768),
            IntermediateSize = f.Int("intermediate_size", 3072),
            LayerCount = f.Int("num_hidden_layers", 12),
            HeadCount = f.Int("num_attention_heads", 12),
            ImageSize = f.Int("image_size", 224),
            PatchSize = f.Int("patch_size", 32),
            ChannelCount = f.Int("num_channels", 3),
            NormEpsilon = f.Double("layer_norm_eps", 1e-5),
        };
        f.Require(vision.HeadCount > 0 && vision.HiddenSize > 0 && vision.HiddenSize % Math.Max(vision.HeadCount, 1) == 0,
            $"{f.Name("hidden_size")} {vision.HiddenSize} is not a multiple of num_attention_heads {vision.HeadCount}.");
        f.Require(vision.PatchSize > 0 && vision.ImageSize >= vision.PatchSize,
            $"{f.Name("image_size")} {vision.ImageSize} is smaller than patch_size {vision.PatchSize}.");
        return vision;
    }

    private static torch.ScalarType? Dtype(string? name) => name switch
    {
        "float32" => torch.ScalarType.Float32,
        "float16" => torch.ScalarType.Float16,
        "bfloat16" => torch.ScalarType.BFloat16,
        _ => null,
    };

    private static JsonObject ReadObject(string path)
    {
        if (!File.Exists(path)) throw new InvalidConfigurationException(path, ["the file does not exist; a checkpoint folder has a config.json."]);
        try
        {
            return JsonNode.Parse(File.ReadAllBytes(path)) as JsonObject
                ?? throw new InvalidConfigurationException(path, ["the file holds no JSON object."]);
        }
        catch (JsonException e)
        {
            throw new InvalidConfigurationException(path, [$"the file is no JSON: {e.Message}"]);
        }
    }
}
