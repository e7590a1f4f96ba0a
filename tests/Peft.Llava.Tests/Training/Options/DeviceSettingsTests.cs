using Peft.Core;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Settings that depend on where the model is, and the switches of the process.</summary>
[Collection(ProcessWideState.Name)]
public sealed class DeviceSettingsTests
{
    [Fact]
    public void A_setting_of_another_device_is_refused()
    {
        using var run = new TinyRun();
        Assert.Equal(["Tf32 is a mode of NVIDIA GPUs, and the model is on CPU; leave it null"],
            Assert.Throws<TrainingOptionsException>(() => new LLaVATrainer(run.Peft, run, run.Options with { Tf32 = true })).Problems);
        // A device without memory stands for any that is not the CPU.
        run.Model.to(DeviceType.META);
        Assert.Equal(["UseCpu is true, and the model is on META; load it with LlavaLoadOptions.Device = CPU"],
            Assert.Throws<TrainingOptionsException>(() => new LLaVATrainer(run.Peft, run, run.Options with { UseCpu = true })).Problems);
    }

    [Fact]
    public void The_switch_of_float32_products_is_put_back()
    {
        using var run = new TinyRun();
        var (matmul, cudnn) = (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32);
        try
        {
            (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) = (true, true);
            var during = new List<bool>();
            var watch = new Watch { OnReport = _ => during.AddRange([backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32]) };
            using (var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 1, Tf32 = false }, watch)) trainer.Train();
            Assert.Equal([false, false], during);
            Assert.True(backends.cuda.matmul.allow_tf32 && backends.cudnn.allow_tf32);
        }
        finally
        {
            (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) = (matmul, cudnn);
        }
    }
}
