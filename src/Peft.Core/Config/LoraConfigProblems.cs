using System.Globalization;

namespace Peft.Core;

/// <summary>What in a <see cref="LoraConfig"/> cannot be.</summary>
internal static class LoraConfigProblems
{
    public static IReadOnlyList<string> Of(LoraConfig c)
    {
        var problems = new List<string>();
        if (c.Rank < 1) problems.Add($"r must be at least 1, got {c.Rank}");
        foreach (var (key, rank) in c.RankPattern)
            if (rank < 1) problems.Add($"rank_pattern['{key}'] must be at least 1, got {rank}");
        CheckAlpha(problems, "lora_alpha", c.Alpha);
        foreach (var (key, alpha) in c.AlphaPattern) CheckAlpha(problems, $"alpha_pattern['{key}']", alpha);
        if (!(c.Dropout >= 0 && c.Dropout < 1)) problems.Add($"lora_dropout must be at least 0 and below 1, got {Number(c.Dropout)}");
        if (c.LoraBOwnBias && c.UseDora) problems.Add("lora_bias does not go with use_dora; set one of them to false");
        if (c.LoraBOwnBias && c.Init != LoraInit.Default && c.Init != LoraInit.Random)
            problems.Add($"lora_bias goes with init_lora_weights true or false only, got '{c.Init}'");
        CheckTargets(problems, c);
        CheckPatterns(problems, c);
        CheckInit(problems, c);
        if (c.LayerReplication is { } map)
        {
            foreach (var (start, end) in map)
                if (start < 0 || end <= start) problems.Add($"layer_replication has the empty or negative range [{start}, {end})");
        }
        return problems;
    }

    private static void CheckTargets(List<string> problems, LoraConfig c)
    {
        bool any = c.TargetModules is { } t && (t.Pattern is not null || t.Count > 0);
        if (!any && c.TargetParameters is not { Count: > 0 }) problems.Add("target_modules is missing; name the layers, e.g. [\"q_proj\", \"v_proj\"], or use TargetModules.AllLinear");
        if (c.LayersToTransform is not null && c.TargetModules?.Pattern is not null)
            problems.Add("layers_to_transform needs target_modules as a list; put the layer numbers into the regular expression instead");
        if (c.LayersPattern is { Count: > 0 } && c.LayersToTransform is null)
            problems.Add("layers_pattern is set but layers_to_transform is not");
        if (c.TargetParameters is { Count: > 0 })
        {
            if (c.Dropout > 0) problems.Add("target_parameters cannot have dropout; set lora_dropout to 0");
            if (c.UseDora) problems.Add("target_parameters cannot be used with use_dora");
            if (c.LoraBOwnBias) problems.Add("target_parameters cannot be used with lora_bias");
        }
    }

    private static void CheckPatterns(List<string> problems, LoraConfig c)
    {
        CheckPattern(problems, "target_modules", c.TargetModules is { IsAllLinear: false } t ? t.Pattern : null);
        CheckPattern(problems, "exclude_modules", c.ExcludeModules?.Pattern);
        foreach (string key in c.RankPattern.Keys) CheckPattern(problems, "rank_pattern", key);
        foreach (string key in c.AlphaPattern.Keys) CheckPattern(problems, "alpha_pattern", key);
        foreach (string pattern in c.LayersPattern ?? []) CheckPattern(problems, "layers_pattern", pattern);
    }

    private static void CheckPattern(List<string> problems, string field, string? pattern)
    {
        if (pattern is not null && PythonPattern.FaultOf(pattern) is { } fault)
            problems.Add($"{field} is no valid regular expression: {fault}");
    }

    private static void CheckInit(List<string> problems, LoraConfig c)
    {
        if (!c.Init.IsKnown) problems.Add($"init_lora_weights '{c.Init}' {UnknownInit(c.Init.Word)}");
        if (c.Init == LoraInit.Orthogonal && (c.Rank % 2 != 0 || c.RankPattern.Values.Any(r => r % 2 != 0)))
            problems.Add("init_lora_weights 'orthogonal' needs even ranks");
        if (c.Init == LoraInit.Loftq && c.Loftq is { } loftq && (loftq.Iterations < 1 || loftq.Bits is not (2 or 4 or 8)))
            problems.Add($"loftq_config must have 2, 4 or 8 bits and at least 1 round, got {loftq.Bits} bits and {loftq.Iterations}");
    }

    private static string UnknownInit(string word) => word.ToLowerInvariant() switch
    {
        "eva" => "takes its factors from training data, which is not there; use true, pissa or olora. An adapter that was trained with it is plain LoRA and loads",
        "corda" or "lora_ga" or "mica" => "takes its factors from training data, which is not there; use true, pissa or olora. Merge an adapter that was trained "
            + "with it into its base with PEFT, and load the merged model",
        _ => "is not known; use true, false, gaussian, pissa, pissa_niter_N, olora, orthogonal or loftq",
    };

    private static void CheckAlpha(List<string> problems, string field, double alpha)
    {
        if (!(alpha > 0) || double.IsInfinity(alpha)) problems.Add($"{field} must be above 0, got {Number(alpha)}");
    }

    private static string Number(double value) => value.ToString(CultureInfo.InvariantCulture);
}
