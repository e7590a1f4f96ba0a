using System.Globalization;
using System.Text.Json;

namespace Peft.Llava;

/// <summary>
/// The JSON file of <c>--deepspeed</c>, as far as it decides something in one process: stage, precision, batch. Values that contradict the flags are
/// refused, as transformers does; sections that would change the numbers in another way are refused too.
/// </summary>
internal sealed class DeepSpeedFile
{
    // How processes share memory and talk: in one process nothing.
    private static readonly string[] WithoutEffect =
    [
        "overlap_comm", "contiguous_gradients", "sub_group_size", "reduce_bucket_size", "reduce_scatter", "allgather_partitions", "allgather_bucket_size",
        "round_robin_gradients", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance",
        "stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save", "gather_16bit_weights_on_model_save", "load_from_fp32_weights",
        "ignore_unused_parameters",
    ];

    private readonly List<string> _problems = [];
    private readonly List<string> _taken = [];
    private TrainingOptions _options;

    private DeepSpeedFile(TrainingOptions options) => _options = options;

    /// <summary>Reads a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">What the flags say.</param>
    /// <param name="problems">Gets what cannot be.</param>
    /// <returns>The options, and one line that says what was taken.</returns>
    public static (TrainingOptions Options, string Taken) Read(string path, TrainingOptions options, List<string> problems)
    {
        var file = new DeepSpeedFile(options);
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(path));
            if (json.RootElement.ValueKind == JsonValueKind.Object) file.Read(json.RootElement);
            else file._problems.Add("it holds no object; give a DeepSpeed configuration such as LLaVA's scripts/zero2.json");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            file._problems.Add($"the file can't be read ({e.Message.TrimEnd('.')}); LLaVA's are zero2.json and zero3.json in its scripts folder. Without the flag the run is the same");
        }
        catch (JsonException e)
        {
            file._problems.Add($"the file is no JSON ({e.Message.TrimEnd('.')})");
        }
        problems.AddRange(file._problems.Select(p => $"--deepspeed {path}: {p}"));
        return (file._options, $"{path}: {string.Join(", ", file._taken)}; the rest is how processes share their memory, and there is one");
    }

    private void Read(JsonElement root)
    {
        foreach (var field in root.EnumerateObject())
        {
            switch (field.Name)
            {
                case "zero_optimization": Zero(field.Value); break;
                case "bf16": Precision(field.Value, "bf16", TrainingPrecision.BFloat16); break;
                case "fp16": Precision(field.Value, "fp16", TrainingPrecision.Float16); break;
                case "train_micro_batch_size_per_gpu": Number(field, _options.BatchSize, "micro-batch", "--per_device_train_batch_size"); break;
                case "gradient_accumulation_steps": Number(field, _options.AccumulationSteps, "accumulation", "--gradient_accumulation_steps"); break;
                case "train_batch_size":
                    Number(field, _options.BatchSize * _options.AccumulationSteps, "batch", "--per_device_train_batch_size times --gradient_accumulation_steps of one process");
                    break;
                case "gradient_clipping": Number(field, _options.MaxGradNorm, null, "--max_grad_norm"); break;
                case "steps_per_print" or "wall_clock_breakdown": break;
                case "optimizer":
                    _problems.Add("its section 'optimizer' replaces LLaVA's parameter groups; remove it, --optim and the rates decide");
                    break;
                case "scheduler":
                    _problems.Add("its section 'scheduler' replaces --lr_scheduler_type; remove it");
                    break;
                default:
                    _problems.Add($"its field '{field.Name}' is not known to run in one process as it says; remove it");
                    break;
            }
        }
        // The peers do not clip where the file has no such field.
        _taken.Add(_options.MaxGradNorm > 0
            ? $"clipping at --max_grad_norm {Text(_options.MaxGradNorm)}{(root.TryGetProperty("gradient_clipping", out _) ? "" : " (DeepSpeed would not clip, since the file does not say so)")}"
            : "no clipping");
    }

    private void Zero(JsonElement section)
    {
        if (section.ValueKind != JsonValueKind.Object)
        {
            _problems.Add("zero_optimization is no object");
            return;
        }
        foreach (var field in section.EnumerateObject())
        {
            if (field.Name == "stage")
            {
                if (field.Value.ValueKind == JsonValueKind.Number && field.Value.TryGetInt32(out int stage) && stage is >= 0 and <= 3)
                    _taken.Add($"stage {stage} (all values are in the one process)");
                else _problems.Add($"zero_optimization.stage is {field.Value.GetRawText()}, and it must be 0, 1, 2 or 3");
            }
            else if (field.Name is "offload_optimizer" or "offload_param")
            {
                if (!(field.Value.ValueKind == JsonValueKind.Object && field.Value.TryGetProperty("device", out var device) && device.ValueEquals("none")))
                    _problems.Add($"zero_optimization.{field.Name} moves values between devices, which one process does not; remove it. To save memory use --bits 4, --gradient_checkpointing True or a smaller --per_device_train_batch_size");
            }
            else if (!WithoutEffect.Contains(field.Name))
            {
                _problems.Add($"its field 'zero_optimization.{field.Name}' is not known to run in one process as it says; remove it");
            }
        }
    }

    private void Precision(JsonElement section, string flag, TrainingPrecision precision)
    {
        if (section.ValueKind != JsonValueKind.Object || !section.TryGetProperty("enabled", out var enabled)) return;
        bool asked = _options.Precision == precision;
        if (enabled.ValueKind is JsonValueKind.True or JsonValueKind.False)
        {
            bool on = enabled.ValueKind == JsonValueKind.True;
            if (on != asked) _problems.Add($"{flag}.enabled is {(on ? "true" : "false")} and the flags say --{flag} {asked}; make them agree, or write \"auto\"");
        }
        else if (!IsAuto(enabled))
        {
            _problems.Add($"{flag}.enabled is {enabled.GetRawText()}, and it must be true, false or \"auto\"");
        }
        if (!asked) return;
        _taken.Add(flag);
        if (precision == TrainingPrecision.Float16) Scaling(section);
    }

    /// <summary>DeepSpeed's dynamic scale. Its hysteresis has no counterpart: every overflow lowers the scale.</summary>
    private void Scaling(JsonElement section)
    {
        if (Of(section, "loss_scale", 0) is not 0)
        {
            _problems.Add("fp16.loss_scale fixes the loss scale; write 0 for one that adapts");
            return;
        }
        var scaling = _options.LossScaling with
        {
            InitialScale = Math.Pow(2, Of(section, "initial_scale_power", 16)),
            GrowthInterval = (int)Math.Clamp(Of(section, "loss_scale_window", 1000), 0, int.MaxValue),
            MinimumScale = Of(section, "min_loss_scale", 1),
        };
        _problems.AddRange(scaling.Problems().Select(p => $"of its section fp16: {p}"));
        _options = _options with { LossScaling = scaling };
        _taken.Add($"loss scale from {Text(scaling.InitialScale)}, doubled after {scaling.GrowthInterval} good steps, halved at each overflow (hysteresis is not taken)");
    }

    private double Of(JsonElement section, string name, double missing)
    {
        if (!section.TryGetProperty(name, out var value)) return missing;
        if (value.ValueKind == JsonValueKind.Number) return value.GetDouble();
        _problems.Add($"fp16.{name} is {value.GetRawText()}, and it must be a number");
        return missing;
    }

    private void Number(JsonProperty field, double flags, string? label, string flag)
    {
        if (IsAuto(field.Value) || (field.Value.ValueKind == JsonValueKind.Number && field.Value.GetDouble() == flags))
        {
            if (label is not null) _taken.Add($"{label} {Text(flags)}");
        }
        else
        {
            _problems.Add($"{field.Name} is {field.Value.GetRawText()} and {flag} gives {Text(flags)}; make them agree, or write \"auto\"");
        }
    }

    private static bool IsAuto(JsonElement value) => value.ValueKind == JsonValueKind.String && value.ValueEquals("auto");

    private static string Text(double number) => number.ToString("R", CultureInfo.InvariantCulture);
}
