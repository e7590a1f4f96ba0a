using System.Globalization;

namespace Peft.Llava;

/// <summary>The flags of LLaVA's <c>train.py</c> (its own and transformers'), each with what it does here, or the sentence that refuses it.</summary>
internal static class LlavaFlags
{
    private const string Single = "training runs in one process on one device; leave it out";
    private const string Hub = "nothing is fetched from or sent to the network; give local folders and leave it out";
    private const string Memory = "to save memory use --bits 4, --gradient_checkpointing True or a smaller --per_device_train_batch_size";
    private const string Observer = "give --report_to tensorboard, wandb (which is not sent to) or none, or pass your own ITrainingObserver to the trainer";
    private const string NoEvaluation = "LLaVA's own script has no evaluation set either; use --evaluation_strategy no, and in code TrainingOptions.Evaluation";

    /// <summary>The flags that are honoured.</summary>
    public static IReadOnlyDictionary<string, Flag> Known { get; } = new Dictionary<string, Flag>(StringComparer.Ordinal)
    {
        // Model
        ["model_name_or_path"] = Text((s, v) => s.Model = s.Model with { ModelPath = v }),
        ["version"] = Text((s, v) => s.Model = s.Model with { Version = v }),
        ["freeze_backbone"] = Boolean((s, v) => s.FreezeBackbone = v),
        ["tune_mm_mlp_adapter"] = Boolean((s, v) => s.TuneProjector = v),
        ["freeze_mm_mlp_adapter"] = Boolean((s, v) => s.FreezeProjector = v),
        ["vision_tower"] = Text((s, v) => s.Model = s.Model with { VisionTower = v }),
        ["mm_vision_select_layer"] = Integer((s, v) => s.Model = s.Model with { VisionSelectLayer = v }),
        ["pretrain_mm_mlp_adapter"] = Text((s, v) => s.Model = s.Model with { ProjectorWeights = v }),
        ["mm_projector_type"] = Text((s, v) => s.Model = s.Model with { ProjectorType = v }),
        ["mm_use_im_start_end"] = Boolean((s, v) => s.Model = s.Model with { UseImageStartEnd = v }),
        ["mm_use_im_patch_token"] = Boolean((s, v) => s.Model = s.Model with { UseImagePatchToken = v }),
        ["mm_patch_merge_type"] = OneOf(["flat", "spatial", "spatial_unpad"], (s, v) => s.Model = s.Model with { PatchMergeType = v }),
        ["mm_vision_select_feature"] = OneOf(["patch", "cls_patch"], (s, v) => s.Model = s.Model with { VisionSelectFeature = v }),
        ["bits"] = OneOf(["16", "8", "4"], (s, v) => s.Model = s.Model with { Bits = int.Parse(v, CultureInfo.InvariantCulture) }),
        ["quant_type"] = OneOf(["nf4", "fp4"], (s, v) => s.Model = s.Model with { QuantType = v }),
        ["double_quant"] = Boolean((s, v) => s.Model = s.Model with { DoubleQuantization = v }),

        // Data
        ["data_path"] = Text((s, v) => s.Data = s.Data with { DataPath = v }),
        ["image_folder"] = Text((s, v) => s.Data = s.Data with { ImageFolder = v }),
        ["image_aspect_ratio"] = OneOf(["square", "pad", "anyres"], (s, v) => s.Data = s.Data with { ImageAspectRatio = v }),
        ["lazy_preprocess"] = Boolean((s, _) => s.Ignore("lazy_preprocess", "samples are prepared when they are needed, as in LLaVA whatever it says")),
        ["is_multimodal"] = Boolean((s, _) => s.Ignore("is_multimodal", "follows from whether there is a tower, as in LLaVA")),

        // Adapter
        ["lora_enable"] = Boolean((s, v) => s.Lora = s.Lora with { Enabled = v }),
        ["lora_r"] = Integer((s, v) => s.Lora = s.Lora with { Rank = v }),
        ["lora_alpha"] = Integer((s, v) => s.Lora = s.Lora with { Alpha = v }),
        ["lora_dropout"] = Number((s, v) => s.Lora = s.Lora with { Dropout = v }),
        ["lora_bias"] = OneOf(["none", "all", "lora_only"], (s, v) => s.Lora = s.Lora with { Bias = v }),

        // Training
        ["output_dir"] = Text((s, v) => s.Training = s.Training with { OutputDirectory = v }),
        ["overwrite_output_dir"] = Boolean((s, v) => s.Training = s.Training with { ReplaceCheckpoints = v }),
        ["resume_from_checkpoint"] = new Flag(true, Resume),
        ["dry_run"] = Boolean((s, v) => s.Run = s.Run with { DryRun = v }),
        ["llava_exact"] = Boolean((s, v) => s.Training = s.Training with { Weighting = v ? StepWeighting.LlavaExact : StepWeighting.SupervisedTokens }),
        ["deepspeed"] = Text((s, v) => s.DeepSpeed = v),
        ["num_train_epochs"] = Number((s, v) => s.Training = s.Training with { Epochs = v }),
        ["max_steps"] = Integer((s, v) => s.Training = s.Training with { MaxSteps = v }),
        ["per_device_train_batch_size"] = Integer((s, v) => s.Training = s.Training with { BatchSize = v }),
        ["per_device_eval_batch_size"] = Integer((s, _) => s.Ignore("per_device_eval_batch_size", "is of use with an evaluation set, which LLaVA's script never has")),
        ["gradient_accumulation_steps"] = Integer((s, v) => s.Training = s.Training with { AccumulationSteps = v }),
        ["dataloader_drop_last"] = Boolean((s, v) => s.Training = s.Training with { DropLastBatch = v }),
        ["dataloader_num_workers"] = Integer((s, v) => s.Training = s.Training with { DataWorkers = v }),
        ["group_by_length"] = Boolean((s, v) => s.GroupByLength = v),
        ["group_by_modality_length"] = Boolean((s, v) => s.GroupByModality = v),
        ["model_max_length"] = Integer((s, v) => s.Training = s.Training with { MaxLength = v }),
        ["learning_rate"] = Number((s, v) => s.Training = s.Training with { LearningRate = v }),
        ["mm_projector_lr"] = Number((s, v) => s.Training = s.Training with { ProjectorLearningRate = v }),
        ["weight_decay"] = Number((s, v) => s.Training = s.Training with { WeightDecay = v }),
        ["adam_beta1"] = Number((s, v) => s.Training = s.Training with { AdamBeta1 = v }),
        ["adam_beta2"] = Number((s, v) => s.Training = s.Training with { AdamBeta2 = v }),
        ["adam_epsilon"] = Number((s, v) => s.Training = s.Training with { AdamEpsilon = v }),
        ["max_grad_norm"] = Number((s, v) => s.Training = s.Training with { MaxGradNorm = v }),
        ["lr_scheduler_type"] = new Flag(false, Schedule),
        ["warmup_ratio"] = Number((s, v) => s.Training = s.Training with { WarmupRatio = v }),
        ["warmup_steps"] = Integer((s, v) => s.Training = s.Training with { WarmupSteps = v }),
        ["optim"] = new Flag(false, Optimizer),
        ["adafactor"] = Boolean((s, v) => s.Training = v ? s.Training with { Optimizer = OptimizerKind.Adafactor } : s.Training),
        ["seed"] = Integer((s, v) => s.Training = s.Training with { Seed = v }),
        ["bf16"] = Boolean((s, v) => s.BrainHalf = v),
        ["fp16"] = Boolean((s, v) => s.Half = v),
        ["tf32"] = new Flag(true, Tf32),
        ["gradient_checkpointing"] = Boolean((s, v) => s.Training = s.Training with { GradientCheckpointing = v }),
        ["save_strategy"] = new Flag(false, Save),
        ["save_steps"] = Integer((s, v) => s.Training = s.Training with { SaveSteps = v }),
        ["save_total_limit"] = Integer((s, v) => s.Training = s.Training with { SaveTotalLimit = v }),
        ["save_safetensors"] = Boolean((s, v) => s.Training = s.Training with { SaveAdapterAsPickle = !v }),
        ["logging_steps"] = Integer((s, v) => s.Training = s.Training with { LoggingSteps = v }),
        ["logging_strategy"] = Only("steps", "entries of trainer_state.json follow --logging_steps"),
        ["evaluation_strategy"] = Only("no", NoEvaluation),
        ["eval_strategy"] = Only("no", NoEvaluation),
        ["report_to"] = new Flag(false, ReportTo),
        ["logging_dir"] = Text((s, v) => s.Run = s.Run with { LoggingFolder = v }),
        ["remove_unused_columns"] = OnlyFalse("samples are read by their fields; leave it out"),
        ["use_cpu"] = new Flag(true, UseCpu),
        ["no_cuda"] = new Flag(true, UseCpu),
        ["local_rank"] = Only("-1", Single),
        ["disable_tqdm"] = Boolean((s, _) => s.Ignore("disable_tqdm", "the trainer draws nothing itself")),
        ["lora_weight_path"] = Only("", "load the adapter before training, by PeftModel.LoadAdapter; LLaVA's script ignores the flag"),
        ["mpt_attn_impl"] = Only("triton", "MPT models are not supported; leave it out"),
    };

    /// <summary>Flags of transformers and LLaVA that cannot be honoured, with what to use.</summary>
    public static IReadOnlyDictionary<string, string> Refused { get; } = Refuse(
        (["fsdp", "fsdp_config", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap", "accelerator_config"], $"{Single}; {Memory}"),
        (["ddp_backend", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_find_unused_parameters", "ddp_broadcast_buffers", "dispatch_batches", "split_batches",
            "average_tokens_across_devices", "ddp_static_graph", "parallelism_config", "tpu_num_cores", "tpu_metrics_debug", "use_mps_device", "use_ipex", "mp_parameters", "sharded_ddp", "log_on_each_node", "save_on_each_node"], Single),
        (["cache_dir", "push_to_hub", "hub_model_id", "hub_token", "hub_strategy", "hub_private_repo", "hub_always_push",
            "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token", "hub_revision"], Hub),
        (["do_eval", "do_predict", "eval_steps", "eval_delay", "eval_accumulation_steps", "bf16_full_eval", "fp16_full_eval", "include_inputs_for_metrics",
            "prediction_loss_only", "metric_for_best_model", "greater_is_better", "load_best_model_at_end", "label_names", "include_for_metrics",
            "eval_do_concat_batches", "eval_on_start", "eval_use_gather_object", "batch_eval_metrics", "use_legacy_prediction_loop"], NoEvaluation),
        (["logging_first_step", "logging_nan_inf_filter", "log_level", "log_level_replica", "run_name", "project", "trackio_space_id",
            "include_num_input_tokens_seen", "include_tokens_per_second"], Observer),
        (["half_precision_backend", "fp16_opt_level", "fp16_backend"], "the precision is chosen by --bf16 or --fp16 alone"),
        (["torch_compile", "torch_compile_backend", "torch_compile_mode", "jit_mode_eval", "torchdynamo", "auto_find_batch_size", "debug", "full_determinism",
            "skip_memory_metrics", "past_index", "ray_scope", "optim_args", "label_smoothing_factor", "neftune_noise_alpha", "lr_scheduler_kwargs",
            "length_column_name", "gradient_checkpointing_kwargs", "data_seed", "do_train", "dataloader_pin_memory", "dataloader_persistent_workers",
            "ignore_data_skip", "per_gpu_train_batch_size", "per_gpu_eval_batch_size", "optim_target_modules", "use_liger_kernel", "liger_kernel_config", "use_cache",
            "torch_empty_cache_steps", "dataloader_prefetch_factor", "train_sampling_strategy", "enable_jit_checkpoint"],
            "it has no counterpart here and none of LLaVA's scripts gives it; leave it out"),
        (["save_only_model", "restore_callback_states_from_checkpoint"], "checkpoints are whole, so that a run can be resumed from each; leave it out"));

    /// <summary>Whether a flag takes all values up to the next flag.</summary>
    public static bool TakesList(string name) => name == "report_to";

    private static Dictionary<string, string> Refuse(params (string[] Names, string Sentence)[] groups)
        => groups.SelectMany(g => g.Names.Select(n => (n, g.Sentence))).ToDictionary(p => p.n, p => p.Sentence, StringComparer.Ordinal);

    private static Flag Text(Action<FlagState, string> set) => new(false, (s, v) =>
    {
        if (v.Length == 0) return "the value is empty";
        set(s, v);
        return null;
    });

    private static Flag Boolean(Action<FlagState, bool> set) => new(true, (s, v) =>
    {
        if (ParseBoolean(v) is not bool value) return "the value must be True or False";
        set(s, value);
        return null;
    });

    private static Flag Integer(Action<FlagState, int> set) => new(false, (s, v) =>
    {
        if (!int.TryParse(v, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value)) return "the value must be a whole number";
        set(s, value);
        return null;
    });

    private static Flag Number(Action<FlagState, double> set) => new(false, (s, v) =>
    {
        if (!double.TryParse(v, NumberStyles.Float, CultureInfo.InvariantCulture, out double value)) return "the value must be a number";
        set(s, value);
        return null;
    });

    private static Flag OneOf(string[] values, Action<FlagState, string> set) => new(false, (s, v) =>
    {
        if (!values.Contains(v)) return $"the value must be one of {string.Join(", ", values)}";
        set(s, v);
        return null;
    });

    private static Flag Only(string value, string sentence) => new(false, (_, v) => v == value ? null : sentence);

    private static Flag OnlyFalse(string sentence) => new(true, (_, v) => ParseBoolean(v) == false ? null : sentence);

    private static bool? ParseBoolean(string value) => value.ToLowerInvariant() switch
    {
        "true" or "yes" or "t" or "y" or "1" => true,
        "false" or "no" or "f" or "n" or "0" => false,
        _ => null,
    };

    private static string? Tf32(FlagState state, string value)
    {
        if (ParseBoolean(value) is not bool on) return "the value must be True or False";
        state.Training = state.Training with { Tf32 = on };
        return null;
    }

    private static string? Resume(FlagState state, string value)
    {
        state.Run = ParseBoolean(value) switch
        {
            true => state.Run with { Resume = CheckpointResume.Always },
            false => state.Run with { Resume = CheckpointResume.Never },
            _ => state.Run with { Resume = CheckpointResume.Always, Checkpoint = value },
        };
        return value.Length == 0 ? "the value must be True, False or a checkpoint-N folder" : null;
    }

    private static string? ReportTo(FlagState state, string value)
    {
        string[] names = value.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        if (names.Length == 0 || names.Any(n => n is not ("none" or "wandb" or "tensorboard"))) return Observer;
        if (names.Length > 1 && names.Contains("none")) return "none goes with no other name";
        state.Run = state.Run with { TensorBoard = names.Contains("tensorboard") };
        if (names.Contains("wandb"))
            state.Ignore("report_to", $"{value}: wandb is a service on the network, which nothing is sent to; the run goes on {(state.Run.TensorBoard ? "with tensorboard alone" : "as with none")}", warns: true);
        return null;
    }

    private static string? UseCpu(FlagState state, string value)
    {
        if (ParseBoolean(value) is not bool on) return "the value must be True or False";
        state.Training = state.Training with { UseCpu = on };
        return null;
    }

    private static string? Schedule(FlagState state, string value)
    {
        try
        {
            state.Training = state.Training with { Schedule = LearningRateSchedule.ParseKind(value) };
            return null;
        }
        catch (TrainingOptionsException e)
        {
            return e.Problems[0];
        }
    }

    private static string? Optimizer(FlagState state, string value)
    {
        OptimizerKind? kind = value switch
        {
            "adamw_torch" or "adamw_torch_fused" => OptimizerKind.AdamW,
            "adamw_hf" => OptimizerKind.AdamWTransformers,
            "adamw_bnb_8bit" or "adamw_8bit" => OptimizerKind.AdamW8Bit,
            "paged_adamw_8bit" => OptimizerKind.PagedAdamW8Bit,
            "lion_8bit" => OptimizerKind.Lion8Bit,
            "adafactor" => OptimizerKind.Adafactor,
            "sgd" => OptimizerKind.Sgd,
            _ => null,
        };
        if (kind is null) return "the value must be one of adamw_torch, adamw_torch_fused, adamw_hf, adafactor, sgd, adamw_bnb_8bit, adamw_8bit, paged_adamw_8bit, lion_8bit";
        state.Training = state.Training with { Optimizer = kind.Value };
        return null;
    }

    private static string? Save(FlagState state, string value)
    {
        SaveStrategy? strategy = value switch
        {
            "no" => SaveStrategy.None,
            "steps" => SaveStrategy.Steps,
            "epoch" => SaveStrategy.Epoch,
            _ => null,
        };
        if (strategy is null) return "the value must be one of no, steps, epoch";
        state.Training = state.Training with { SaveStrategy = strategy.Value };
        return null;
    }

    /// <summary>One flag.</summary>
    /// <param name="TakesBoolean">Whether the value may be left out.</param>
    /// <param name="Apply">Takes the value over, or gives the sentence that refuses it.</param>
    internal sealed record Flag(bool TakesBoolean, Func<FlagState, string, string?> Apply);
}
