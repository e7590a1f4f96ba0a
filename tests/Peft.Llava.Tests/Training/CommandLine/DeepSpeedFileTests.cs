using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>What a DeepSpeed file decides in one process, and what it is refused for.</summary>
[Trait("Fault", "llava-9")]
public sealed class DeepSpeedFileTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private string File => _folder.File("zero.json");

    private LlavaArguments Parse(string json, string flags = "")
    {
        System.IO.File.WriteAllText(File, json);
        return LlavaCommandLine.Parse(["--model_name_or_path", "base", "--data_path", "data.json", "--output_dir", "out", "--lora_enable", "True", "--deepspeed", File,
            .. flags.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
    }

    private string Refusal(string json, string flags = "") => Assert.Single(Assert.Throws<CommandLineException>(() => Parse(json, flags)).Problems).Replace($"--deepspeed {File}: ", "", StringComparison.Ordinal);

    [Fact]
    public void Numbers_that_agree_with_the_flags_are_taken()
    {
        var parsed = Parse("""
            {"train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2, "train_batch_size": 6, "gradient_clipping": 0.5, "bf16": {"enabled": true},
             "steps_per_print": 10, "wall_clock_breakdown": false, "zero_optimization": {"stage": 1, "offload_param": {"device": "none"}}}
            """, "--bf16 True --per_device_train_batch_size 3 --gradient_accumulation_steps 2 --max_grad_norm 0.5");
        Assert.Equal(TrainingPrecision.BFloat16, parsed.Training.Precision);
        Assert.Equal($"taken: --deepspeed {File}: micro-batch 3, accumulation 2, batch 6, bf16, stage 1 (all values are in the one process), clipping at --max_grad_norm 0.5; the rest is how "
            + "processes share their memory, and there is one", Assert.Single(parsed.Run.Warnings).ToString());
        Assert.Contains(", no clipping; the rest", Assert.Single(Parse("""{"zero_optimization": {"stage": 2}}""", "--max_grad_norm 0").Run.Warnings).Text, StringComparison.Ordinal);
    }

    [Fact]
    public void In_float16_the_scale_is_the_files()
    {
        var parsed = Parse("""{"fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 500, "initial_scale_power": 12, "hysteresis": 2, "min_loss_scale": 2}}""", "--fp16 True");
        Assert.Equal(new GradientScalerOptions { InitialScale = 4096, GrowthInterval = 500, MinimumScale = 2 }, parsed.Training.LossScaling);
        Assert.Contains("fp16, loss scale from 4096, doubled after 500 good steps, halved at each overflow (hysteresis is not taken)", Assert.Single(parsed.Run.Warnings).Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"train_micro_batch_size_per_gpu": 4}""", "", "train_micro_batch_size_per_gpu is 4 and --per_device_train_batch_size gives 8; make them agree, or write \"auto\"")]
    [InlineData("""{"train_batch_size": 64}""", "", "train_batch_size is 64 and --per_device_train_batch_size times --gradient_accumulation_steps of one process gives 8; make them agree, or write \"auto\"")]
    [InlineData("""{"gradient_clipping": 0.3}""", "", "gradient_clipping is 0.3 and --max_grad_norm gives 1; make them agree, or write \"auto\"")]
    [InlineData("""{"bf16": {"enabled": true}}""", "", "bf16.enabled is true and the flags say --bf16 False; make them agree, or write \"auto\"")]
    [InlineData("""{"fp16": {"enabled": false}}""", "--fp16 True", "fp16.enabled is false and the flags say --fp16 True; make them agree, or write \"auto\"")]
    [InlineData("""{"bf16": {"enabled": 1}}""", "", "bf16.enabled is 1, and it must be true, false or \"auto\"")]
    [InlineData("""{"fp16": {"enabled": "auto", "loss_scale": 128}}""", "--fp16 True", "fp16.loss_scale fixes the loss scale; write 0 for one that adapts")]
    [InlineData("""{"fp16": {"enabled": "auto", "loss_scale_window": "long"}}""", "--fp16 True", "fp16.loss_scale_window is \"long\", and it must be a number")]
    [InlineData("""{"zero_optimization": {"stage": 4}}""", "", "zero_optimization.stage is 4, and it must be 0, 1, 2 or 3")]
    [InlineData("""{"zero_optimization": 2}""", "", "zero_optimization is no object")]
    [InlineData("""{"zero_optimization": {"zero_hpz_partition_size": 2}}""", "", "its field 'zero_optimization.zero_hpz_partition_size' is not known to run in one process as it says; remove it")]
    [InlineData("""{"zero_optimization": {"offload_param": {"device": "cpu"}}}""", "", "zero_optimization.offload_param moves values between devices, which one process does not; remove it. To save memory use "
        + "--bits 4, --gradient_checkpointing True or a smaller --per_device_train_batch_size")]
    [InlineData("""{"optimizer": {}}""", "", "its section 'optimizer' replaces LLaVA's parameter groups; remove it, --optim and the rates decide")]
    [InlineData("""{"scheduler": {}}""", "", "its section 'scheduler' replaces --lr_scheduler_type; remove it")]
    [InlineData("""{"curriculum_learning": {}}""", "", "its field 'curriculum_learning' is not known to run in one process as it says; remove it")]
    [InlineData("[]", "", "it holds no object; give a DeepSpeed configuration such as LLaVA's scripts/zero2.json")]
    public void What_contradicts_the_flags_or_would_change_the_numbers_is_refused(string json, string flags, string problem) => Assert.Equal(problem, Refusal(json, flags));

    [Fact]
    public void A_file_that_cannot_be_read_is_named()
    {
        Assert.StartsWith("the file is no JSON (", Refusal("{"), StringComparison.Ordinal);
        var e = Assert.Throws<CommandLineException>(() => LlavaCommandLine.Parse(["--model_name_or_path", "b", "--data_path", "d", "--output_dir", "o", "--deepspeed", _folder.File("none.json")]));
        Assert.StartsWith($"--deepspeed {_folder.File("none.json")}: the file can't be read (", Assert.Single(e.Problems), StringComparison.Ordinal);
        Assert.EndsWith("LLaVA's are zero2.json and zero3.json in its scripts folder. Without the flag the run is the same", e.Problems[0], StringComparison.Ordinal);
    }
}
