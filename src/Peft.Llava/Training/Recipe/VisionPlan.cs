namespace Peft.Llava;

/// <summary>
/// What of the vision side a run takes from its base and what from its flags (<c>initialize_vision_modules</c>): a LLaVA keeps the projector, the layer and the
/// features that it was trained with; a language model gets those of the flags.
/// </summary>
internal sealed record VisionPlan
{
    private readonly List<string> _warnings = [];

    private VisionPlan(LlavaArguments arguments, LlavaConfig own)
    {
        var model = arguments.Model;
        bool keeps = own.HasVision;
        ProjectorType = Keep("--mm_projector_type", model.ProjectorType, keeps ? own.Projector.Name : null, "linear");
        SelectLayer = int.Parse(
            Keep("--mm_vision_select_layer", model.VisionSelectLayer?.ToString(Invariant), keeps ? own.FeatureLayer.Value.ToString(Invariant) : null, "-1"), Invariant);
        SelectFeature = Keep("--mm_vision_select_feature", model.VisionSelectFeature, keeps ? FeatureOf(own) : null, "patch");
        // LLaVA reads the rule from the configuration that the flag has changed, so the flag counts; left out, the base's own stays.
        PatchMergeType = model.PatchMergeType ?? (keeps ? MergeOf(own) : "flat");
        UsesStartEnd = ImageTokens.UsesStartEnd(arguments, own);
    }

    private static System.Globalization.CultureInfo Invariant => System.Globalization.CultureInfo.InvariantCulture;

    public string ProjectorType { get; }

    public int SelectLayer { get; }

    public string SelectFeature { get; }

    public string PatchMergeType { get; }

    public bool UsesStartEnd { get; }

    /// <summary>One sentence for each flag that the base's own value goes before.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    public static VisionPlan Of(LlavaArguments arguments, LlavaConfig own) => new(arguments, own);

    /// <summary>The flags that would say something else than what happens: one sentence each.</summary>
    public static List<string> Problems(LlavaArguments arguments, LlavaConfig own)
    {
        var problems = new List<string>();
        var model = arguments.Model;
        if (ImageTokens.GetsTower(arguments, own))
        {
            if (arguments.Data.ImageAspectRatio == "anyres" && own.GridPinpoints.Count == 0)
                problems.Add("--image_aspect_ratio anyres brings pictures to one of the sizes in image_grid_pinpoints, and the base's config.json has none; add the list to it, such as "
                    + "[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], or give --image_aspect_ratio pad");
            return problems;
        }
        if (model.VisionTower is not null)
            problems.Add("--vision_tower puts a tower on a base in the original layout, and a llava-hf checkpoint holds its own tower and its picture settings; leave it out");
        const string reason = "is taken only where --vision_tower puts a tower on a base in the original layout";
        if (model.ProjectorWeights is not null) problems.Add($"--pretrain_mm_mlp_adapter {reason}; give --vision_tower too, or leave it out");
        Want("--mm_projector_type", model.ProjectorType, own.Projector.Name);
        Want("--mm_vision_select_layer", model.VisionSelectLayer?.ToString(Invariant), own.FeatureLayer.Value.ToString(Invariant));
        Want("--mm_vision_select_feature", model.VisionSelectFeature, FeatureOf(own));
        Want("--mm_patch_merge_type", model.PatchMergeType, MergeOf(own));
        Want("--image_aspect_ratio", arguments.Data.ImageAspectRatio, own.ImageAspectRatio);
        return problems;

        void Want(string flag, string? given, string has)
        {
            if (given is not null && (!own.HasVision || given != has))
                problems.Add($"{flag} {given} {reason}{(own.HasVision ? $", and the base has {has}" : "")}; give --vision_tower too, or leave it out");
        }
    }

    private static string FeatureOf(LlavaConfig own) => own.KeepClassToken ? "cls_patch" : "patch";

    private static string MergeOf(LlavaConfig own) => own.PatchMerge switch
    {
        Llava.PatchMergeType.SpatialUnpad => "spatial_unpad",
        Llava.PatchMergeType.Spatial => "spatial",
        _ => "flat",
    };

    private string Keep(string flag, string? given, string? has, string otherwise)
    {
        if (has is null) return given ?? otherwise;
        if (given is not null && given != has) _warnings.Add($"{flag} {given} is not followed: the base was trained with {has} and keeps it, in config.json too");
        return has;
    }
}
