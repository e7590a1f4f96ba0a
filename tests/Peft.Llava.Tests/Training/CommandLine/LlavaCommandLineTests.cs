using System.Text.Json;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class LlavaCommandLineTests
{
    private static readonly string[] Least = ["--model_name_or_path", "base", "--data_path", "data.json", "--output_dir", "out"];

    public static IEnumerable<TheoryDataRow<string>> Runs => Goldens.Rows("training", c => c.Json.TryGetProperty("argv", out _));

    [Theory, MemberData(nameof(Runs)), Trait(Goldens.Trait, "training")]
    public void Recorded_argument_lists_give_the_recorded_rates(string folder)
    {
        var golden = new GoldenCase(folder);
        var training = LlavaCommandLine.Parse([.. golden.Json.GetProperty("argv").EnumerateArray().Select(e => e.GetString()!)]).Training;
        int warmup = LearningRateSchedule.WarmupFromRatio(training.WarmupSteps, training.WarmupRatio, training.MaxSteps);
        Assert.Equal(golden.Json.GetProperty("warmup_steps").GetInt32(), warmup);
        var schedule = new LearningRateSchedule(training.Schedule, warmup, training.MaxSteps, training.LearningRate, training.ScheduleCycles);
        double[] rates = [.. golden.Json.GetProperty("parameter_groups").EnumerateArray().Select(g => g.GetProperty("lr").GetDouble())];
        using var steps = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("steps_file").GetString()!)));
        foreach (var step in steps.RootElement.EnumerateArray())
        {
            double factor = schedule.Factor(step.GetProperty("step").GetInt32() - 1);
            Assert.Equal(step.GetProperty("lr").EnumerateArray().Select(e => e.GetDouble()), rates.Select(r => r * factor), (a, b) => Math.Abs(a - b) <= 1e-13 * Math.Abs(a));
        }
    }

    [Fact]
    public void The_script_finetune_lora_without_its_cluster_flags_is_the_preset()
    {
        var parsed = LlavaCommandLine.Parse(Split("""
            --lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --model_name_or_path lmsys/vicuna-13b-v1.5 --version v1
            --data_path ./playground/data/llava_v1_5_mix665k.json --image_folder ./playground/data --vision_tower openai/clip-vit-large-patch14-336
            --pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2
            --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad --group_by_modality_length True --bf16 True
            --output_dir ./checkpoints/llava-v1.5-13b-lora --num_train_epochs 1 --per_device_train_batch_size 16 --per_device_eval_batch_size 4
            --gradient_accumulation_steps 1 --evaluation_strategy no --save_strategy steps --save_steps 50000 --save_total_limit 1 --learning_rate 2e-4
            --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --model_max_length 2048 --gradient_checkpointing True
            --dataloader_num_workers 4 --lazy_preprocess True
            """));
        Assert.Equal(TrainingPresets.FinetuneLora with { OutputDirectory = "./checkpoints/llava-v1.5-13b-lora" }, parsed.Training);
        Assert.Equal(new LlavaLoraArguments { Enabled = true, Rank = 128, Alpha = 256 }, parsed.Lora);
        Assert.Equal(new LlavaDataArguments { DataPath = "./playground/data/llava_v1_5_mix665k.json", ImageFolder = "./playground/data", ImageAspectRatio = "pad" }, parsed.Data);
        Assert.Equal(new LlavaModelArguments
        {
            ModelPath = "lmsys/vicuna-13b-v1.5", Version = "v1", VisionTower = "openai/clip-vit-large-patch14-336", UseImagePatchToken = false, UseImageStartEnd = false,
            ProjectorWeights = "./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin", ProjectorType = "mlp2x_gelu", VisionSelectLayer = -2,
        }, parsed.Model);
    }

    [Fact]
    public void The_script_pretrain_is_the_preset()
        => Assert.Equal(TrainingPresets.Pretrain with { OutputDirectory = "out" }, LlavaCommandLine.Parse([.. Least, .. Split("""
            --tune_mm_mlp_adapter True --bf16 True --num_train_epochs 1 --per_device_train_batch_size 32 --save_steps 24000 --save_total_limit 1
            --learning_rate 1e-3 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --model_max_length 2048
            --gradient_checkpointing True --dataloader_num_workers 4
            """)]).Training);

    [Fact]
    public void Values_may_follow_an_equals_sign_and_true_may_be_left_out()
    {
        var parsed = LlavaCommandLine.Parse([.. Least, "--lora_enable", "--lora_r=6", "--mm_vision_select_layer", "-2", "--no_mm_use_im_patch_token", "--learning-rate", "3e-4"]);
        Assert.True(parsed.Lora.Enabled);
        Assert.Equal(6, parsed.Lora.Rank);
        Assert.Equal(-2, parsed.Model.VisionSelectLayer);
        Assert.False(parsed.Model.UseImagePatchToken);
        Assert.Equal(3e-4, parsed.Training.LearningRate);
    }

    [Theory]
    [InlineData("--fsdp full_shard", "--fsdp full_shard can't be honoured: training runs in one process on one device; leave it out; "
        + "to save memory use --bits 4, --gradient_checkpointing True or a smaller --per_device_train_batch_size")]
    [InlineData("--report_to mlflow", "--report_to mlflow: give --report_to tensorboard, wandb (which is not sent to) or none, or pass your own ITrainingObserver to the trainer")]
    [InlineData("--report_to none wandb", "--report_to none wandb: none goes with no other name")]
    [InlineData("--resume_from_checkpoint=", "--resume_from_checkpoint : the value must be True, False or a checkpoint-N folder")]
    [InlineData("--fp16 True", "--fp16 can't train the language model itself, whose steps would be lost to rounding; add --lora_enable True or use --bf16 True")]
    [InlineData("--fp16 True --bf16 True --lora_enable True", "--fp16 and --bf16 contradict each other; give one of them")]
    [InlineData("--fp16 half", "--fp16 half: the value must be True or False")]
    [InlineData("--cache_dir /x", "--cache_dir /x can't be honoured: nothing is fetched from or sent to the network; give local folders and leave it out")]
    [InlineData("--lora_rank 8", "there is no flag --lora_rank; the nearest is --lora_r")]
    [InlineData("--evaluation_strategy steps", "--evaluation_strategy steps: LLaVA's own script has no evaluation set either; use --evaluation_strategy no, and in code TrainingOptions.Evaluation")]
    [InlineData("--lora_enable maybe", "--lora_enable maybe: the value must be True or False")]
    [InlineData("--lora_r 4.5", "--lora_r 4.5: the value must be a whole number")]
    [InlineData("--learning_rate fast", "--learning_rate fast: the value must be a number")]
    [InlineData("--lora_bias some", "--lora_bias some: the value must be one of none, all, lora_only")]
    [InlineData("--version=", "--version : the value is empty")]
    [InlineData("--lora_r", "--lora_r needs a value")]
    [InlineData("--optim adamw_apex_fused", "--optim adamw_apex_fused: the value must be one of adamw_torch, adamw_torch_fused, adamw_hf, adafactor, sgd, adamw_bnb_8bit, adamw_8bit, paged_adamw_8bit, lion_8bit")]
    [InlineData("--lr_scheduler_type steps", "--lr_scheduler_type steps: there is no schedule 'steps'; choose one of linear, cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt")]
    [InlineData("--save_strategy often", "--save_strategy often: the value must be one of no, steps, epoch")]
    [InlineData("stray", "'stray' belongs to no flag; flags start with -- and take one value")]
    [InlineData("--seed 1 --seed 2", "--seed is given twice")]
    [InlineData("--use_cpu perhaps", "--use_cpu perhaps: the value must be True or False")]
    [InlineData("--lora_weight_path x", "--lora_weight_path x: load the adapter before training, by PeftModel.LoadAdapter; LLaVA's script ignores the flag")]
    [InlineData("--tune_mm_mlp_adapter True --freeze_mm_mlp_adapter True", "--tune_mm_mlp_adapter and --freeze_mm_mlp_adapter contradict each other: one trains the projector alone, the other freezes it; give one of them")]
    [InlineData("--freeze_backbone True --lora_enable True", "--freeze_backbone says nothing beside --lora_enable, which freezes the backbone anyway; leave it out")]
    [InlineData("--freeze_backbone True --tune_mm_mlp_adapter True", "--freeze_backbone says nothing beside --tune_mm_mlp_adapter, which freezes the backbone anyway; leave it out")]
    [InlineData("--tune_mm_mlp_adapter True --mm_use_im_start_end True", "--mm_use_im_start_end True can't go with --tune_mm_mlp_adapter, in LLaVA's own script neither (NotImplementedError); give --mm_use_im_start_end False")]
    [InlineData("--group_by_length True --group_by_modality_length True", "--group_by_length and --group_by_modality_length contradict each other; give one of them")]
    [InlineData("--bits 4", "--bits 4 stores the base so that it can't be trained itself; add --lora_enable True or use --bits 16")]
    public void A_flag_that_cannot_be_honoured_is_refused(string flags, string problem)
    {
        var e = Assert.Throws<CommandLineException>(() => LlavaCommandLine.Parse([.. Least, .. Split(flags)]));
        Assert.Equal($"The command line has a problem: {problem}.", e.Message);
        Assert.Equal([problem], e.Problems);
    }

    [Fact]
    public void Precision_follows_from_two_flags()
    {
        TrainingPrecision Of(string flags) => LlavaCommandLine.Parse([.. Least, "--lora_enable", .. Split(flags)]).Training.Precision;
        Assert.Equal(TrainingPrecision.Float16, Of("--fp16 True"));
        Assert.Equal(TrainingPrecision.Float16, Of("--bf16 False --fp16"));
        Assert.Equal(TrainingPrecision.BFloat16, Of("--fp16 False --bf16 True"));
        Assert.Equal(TrainingPrecision.Float32, Of("--fp16 False"));
    }

    [Fact, Trait("Fault", "llava-9")]
    public void Tf32_without_a_gpu_warns_and_goes_on()
    {
        if (torch.cuda.is_available()) Assert.Skip("there is a GPU");
        var parsed = LlavaCommandLine.Parse([.. Least, "--tf32", "True"]);
        Assert.Null(parsed.Training.Tf32);
        Assert.Equal(["ignored: --tf32 True: tf32 is a mode of NVIDIA GPUs, and the run is on the CPU, in float32 as it is"], parsed.Run.Warnings.Select(w => w.ToString()));
        Assert.Equal("The command line has a problem: --tf32 x: the value must be True or False.",
            Assert.Throws<CommandLineException>(() => LlavaCommandLine.Parse([.. Least, "--tf32", "x"])).Message);
        Assert.False(LlavaCommandLine.Parse([.. Least, "--tf32", "False"]).Training.Tf32);
    }

    [Fact, Trait("Fault", "llava-19")]
    public void LLaVAs_exact_mode_can_be_asked_for()
        => Assert.Equal(StepWeighting.LlavaExact, LlavaCommandLine.Parse([.. Least, "--llava_exact", "True"]).Training.Weighting);

    [Fact]
    public void What_became_of_the_flags_is_noted_in_their_order()
    {
        var run = LlavaCommandLine.Parse([.. Least, "--logging_dir", "logs", "--overwrite_output_dir", "True"]);
        Assert.True(run.Training.ReplaceCheckpoints);
        Assert.Equal(["taken: --model_name_or_path base", "taken: --data_path data.json", "taken: --output_dir out",
            "ignored: --logging_dir names the folder of event files, and there are none without --report_to tensorboard", "taken: --overwrite_output_dir True"], run.Run.Notes.Select(n => n.ToString()));
    }

    [Fact]
    public void All_problems_come_at_once()
        => Assert.Equal("The command line has 4 problems:\n  - --fp16 perhaps: the value must be True or False.\n"
            + "  - --seed x: the value must be a whole number.\n  - --data_path is missing; it names the JSON file of the conversations.\n"
            + "  - LearningRate -1 is not a positive number.",
            Assert.Throws<CommandLineException>(() => LlavaCommandLine.Parse(
                ["--fp16", "perhaps", "--seed", "x", "--model_name_or_path", "m", "--output_dir", "o", "--learning_rate", "-1"])).Message);

    [Fact]
    public void Required_flags_that_are_missing_are_named()
        => Assert.Equal(["--model_name_or_path is missing; it names the folder of the base model", "--data_path is missing; it names the JSON file of the conversations",
            "--output_dir is missing; name a folder for the results"], Assert.Throws<CommandLineException>(() => LlavaCommandLine.Parse([])).Problems);

    [Fact]
    public void Parts_follow_from_the_flags_together()
    {
        TrainableParts Of(string flags) => LlavaCommandLine.Parse([.. Least, .. Split(flags)]).Training.Trainable;
        Assert.Equal(TrainableParts.Full(), Of("--bf16 False"));
        Assert.Equal(TrainableParts.Full(projector: false), Of("--freeze_mm_mlp_adapter True"));
        Assert.Equal(new TrainableParts { Head = true, Projector = true }, Of("--freeze_backbone True"));
        Assert.Equal(TrainableParts.Lora(), Of("--lora_enable True"));
        Assert.Equal(TrainableParts.Lora(projector: false), Of("--lora_enable True --freeze_mm_mlp_adapter True"));
        Assert.Equal(TrainableParts.ProjectorOnly(), Of("--tune_mm_mlp_adapter True"));
        Assert.Equal(new TrainableParts { Projector = true, FreezeAdapterAfterCreation = true }, Of("--tune_mm_mlp_adapter True --lora_enable True"));
    }

    private static string[] Split(string flags) => flags.Split([' ', '\n', '\r'], StringSplitOptions.RemoveEmptyEntries);
}
