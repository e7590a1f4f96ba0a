using Peft.Core;
using Peft.Llava;
using static TorchSharp.torch;

using var model = LlavaModel.Load("samples/data/base", new LlavaLoadOptions { Dtype = ScalarType.Float32 });
using var peft = model.GetPeftModel(new LoraConfig { Rank = 16, Alpha = 32, Dropout = 0.05, TargetModules = model.FindAllLinearNames() });
var processor = LlavaProcessor.FromFolder("samples/data/base");
var data = LlavaDataset.FromJson("samples/data/card_train.json", imageFolder: "samples/data", processor);
using var trainer = new LLaVATrainer(peft, data, new TrainingOptions
{
    OutputDirectory = "out/quickstart", LearningRate = 2e-3, Schedule = ScheduleKind.Cosine, WarmupRatio = 0.03, Epochs = 1, BatchSize = 16,
});
var summary = trainer.Train();
trainer.SaveModel();   // adapter_model.safetensors, adapter_config.json, non_lora_trainables.bin, config.json
Console.WriteLine($"{summary.Steps} steps, mean loss {summary.MeanLoss:F3}");
