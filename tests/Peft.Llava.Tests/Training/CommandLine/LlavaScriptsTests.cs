using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>Flag for flag: what LLaVA's scripts give, and what transformers' TrainingArguments know.</summary>
public sealed class LlavaScriptsTests
{
    private static readonly string[] Least = ["--model_name_or_path", "base", "--data_path", "data.json", "--output_dir", "out"];

    // Fields of TrainingArguments in transformers 4.37.2, which LLaVA pins.
    private const string Fields437 = """
        output_dir overwrite_output_dir do_train do_eval do_predict evaluation_strategy prediction_loss_only per_device_train_batch_size per_device_eval_batch_size
        per_gpu_train_batch_size per_gpu_eval_batch_size gradient_accumulation_steps eval_accumulation_steps eval_delay learning_rate weight_decay adam_beta1 adam_beta2
        adam_epsilon max_grad_norm num_train_epochs max_steps lr_scheduler_type lr_scheduler_kwargs warmup_ratio warmup_steps log_level log_level_replica log_on_each_node
        logging_dir logging_strategy logging_first_step logging_steps logging_nan_inf_filter save_strategy save_steps save_total_limit save_safetensors save_on_each_node
        save_only_model no_cuda use_cpu use_mps_device seed data_seed jit_mode_eval use_ipex bf16 fp16 fp16_opt_level half_precision_backend bf16_full_eval fp16_full_eval tf32
        local_rank ddp_backend tpu_num_cores tpu_metrics_debug debug dataloader_drop_last eval_steps dataloader_num_workers past_index run_name disable_tqdm
        remove_unused_columns label_names load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip fsdp fsdp_min_num_params fsdp_config
        fsdp_transformer_layer_cls_to_wrap deepspeed label_smoothing_factor optim optim_args adafactor group_by_length length_column_name report_to ddp_find_unused_parameters
        ddp_bucket_cap_mb ddp_broadcast_buffers dataloader_pin_memory dataloader_persistent_workers skip_memory_metrics use_legacy_prediction_loop push_to_hub
        resume_from_checkpoint hub_model_id hub_strategy hub_token hub_private_repo hub_always_push gradient_checkpointing gradient_checkpointing_kwargs
        include_inputs_for_metrics fp16_backend push_to_hub_model_id push_to_hub_organization push_to_hub_token mp_parameters auto_find_batch_size full_determinism torchdynamo
        ray_scope ddp_timeout torch_compile torch_compile_backend torch_compile_mode dispatch_batches split_batches include_tokens_per_second include_num_input_tokens_seen
        neftune_noise_alpha
        """;

    // Those of newer versions beside them.
    private const string FieldsSince = """
        eval_strategy average_tokens_across_devices optim_target_modules use_liger_kernel liger_kernel_config use_cache torch_empty_cache_steps project trackio_space_id
        accelerator_config eval_do_concat_batches eval_on_start eval_use_gather_object batch_eval_metrics include_for_metrics restore_callback_states_from_checkpoint
        dataloader_prefetch_factor ddp_static_graph parallelism_config hub_revision train_sampling_strategy enable_jit_checkpoint
        """;

    // LLaVA's own three argument classes (llava/train/train.py).
    private const string LlavaFields = """
        model_name_or_path version freeze_backbone tune_mm_mlp_adapter vision_tower mm_vision_select_layer pretrain_mm_mlp_adapter mm_projector_type mm_use_im_start_end
        mm_use_im_patch_token mm_patch_merge_type mm_vision_select_feature data_path lazy_preprocess is_multimodal image_folder image_aspect_ratio cache_dir
        freeze_mm_mlp_adapter mpt_attn_impl model_max_length double_quant quant_type bits lora_enable lora_r lora_alpha lora_dropout lora_weight_path lora_bias
        mm_projector_lr group_by_modality_length
        """;

    public static IEnumerable<TheoryDataRow<string>> Scripts => LlavaScripts.All.Keys.Select(s => new TheoryDataRow<string>(s));

    public static IEnumerable<TheoryDataRow<string>> Fields => Split($"{Fields437} {FieldsSince} {LlavaFields}").Select(f => new TheoryDataRow<string>(f));

    [Theory, MemberData(nameof(Scripts))]
    public void A_script_is_its_preset(string script)
    {
        using var folder = new TemporaryFolder();
        var parsed = LlavaCommandLine.Parse(new ScriptFolders(folder).Arguments(script));
        bool tf32 = LlavaScripts.All[script].Contains("--tf32 True", StringComparison.Ordinal) && !TorchSharp.torch.cuda.is_available();
        Assert.Equal(tf32 ? ["deepspeed", "report_to", "tf32"] : ["deepspeed", "report_to"], parsed.Run.Warnings.Select(w => w.Flag).Order());
        var training = parsed.Training with { Tf32 = null };
        if (PresetOf(script) is { } preset)
        {
            Assert.Equal(preset with { OutputDirectory = training.OutputDirectory }, training);
            return;
        }
        // The first LLaVA's scripts, where a newer one of the same name is the preset.
        var (start, change) = script switch
        {
            "finetune.sh" => (TrainingPresets.Finetune, (Func<TrainingOptions, TrainingOptions>)(o => o with { Ordering = SampleOrdering.Shuffled })),
            "finetune_lora.sh" => (TrainingPresets.FinetuneLora, o => o with { Ordering = SampleOrdering.Shuffled, LearningRate = 2e-5, ProjectorLearningRate = null }),
            "pretrain.sh" => (TrainingPresets.Pretrain, o => o with { BatchSize = 16, LearningRate = 2e-3 }),
            _ => (TrainingPresets.Pretrain, o => o with { BatchSize = 4, AccumulationSteps = 4, LearningRate = 2e-3, Precision = TrainingPrecision.Float32 }),
        };
        Assert.Equal(change(start) with { OutputDirectory = training.OutputDirectory }, training);
    }

    private static TrainingOptions? PresetOf(string script)
    {
        string name = Path.GetFileNameWithoutExtension(script);
        bool newest = script.StartsWith("v1_5/", StringComparison.Ordinal) || !LlavaScripts.All.ContainsKey("v1_5/" + script);
        return newest ? TrainingPresets.Find(name) : null;
    }

    [Fact]
    public void Every_preset_has_a_script() => Assert.Subset(LlavaScripts.All.Keys.Select(s => Path.GetFileNameWithoutExtension(s)!).ToHashSet(), TrainingPresets.Names.ToHashSet());

    [Theory, MemberData(nameof(Fields))]
    public void A_field_of_the_peers_is_honoured_or_refused_with_its_reason(string field)
    {
        // A value that no flag takes: what is honoured complains of the value, what is refused gives its reason.
        try
        {
            LlavaCommandLine.Parse([.. Least, $"--{field}", "?"]);
        }
        catch (CommandLineException e)
        {
            Assert.DoesNotContain(e.Problems, p => p.StartsWith("there is no flag", StringComparison.Ordinal));
            Assert.All(e.Problems, p => Assert.True(p.Length > field.Length + 15, p));
        }
        Assert.Contains($"`{field}`", File.ReadAllText(Path.Combine(Repository.Root, "docs", "training.md")), StringComparison.Ordinal);
    }

    private static string[] Split(string text) => text.Split([' ', '\n', '\r'], StringSplitOptions.RemoveEmptyEntries);
}
