using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using FinetuneLora;
using Peft.Core;
using Peft.Llava;
using Peft.Quantization;
using Peft.Samples;
using TorchSharp;

namespace FinetuneQLora;

/// <summary>LoRA on a base whose decoder is stored in 4 or 8 bits: what it knows before, what it learns, what it forgets, and merging.</summary>
internal sealed class QLoraJob(QuantizationConfig config, CancellationToken stop)
{
    private const int Seed = 0;

    private static readonly JsonSerializerOptions Json = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    private static readonly DemoTask[] Tasks = [DemoTask.Card, DemoTask.Sort];

    private readonly string _data = SampleFolders.Data();
    private readonly string _out = SampleFolders.Output(config.Bits == 4 ? "finetune-qlora" : "finetune-int8");

    private string Base => Path.Combine(_data, "base");

    public int Run()
    {
        var whole = Stopwatch.StartNew();
        using var model = LlavaModel.Load(Base, new LlavaLoadOptions { Dtype = torch.ScalarType.Float32, Quantization = config });
        var layers = ModuleTree.Modules(model).Select(m => m.Module).OfType<FrozenLinear>().ToList();
        long packed = layers.Where(l => l is FourBitLinear or Int8Linear).Sum(l => l.StoredBytes);
        long dense = layers.Where(l => l is FourBitLinear or Int8Linear).Sum(l => l.InFeatures * l.OutFeatures * 2);
        Say($"{layers.Count(l => l is FourBitLinear or Int8Linear)} layers of the decoder: {dense:N0} bytes in bf16, {packed:N0} packed; kernels: {KernelSelection.Current}");
        Say($"{model.PrepareModelForKbitTraining(new KbitPreparationOptions { UseGradientCheckpointing = false })}");

        var processor = LlavaProcessor.FromFolder(Base);
        using var old = new Exam("noto_eval.json", _data, processor);
        var oldBefore = Ask("base", "old questions", old, model);
        using var ownProjector = NonLoraTrainables.CopyOf(model);
        var results = new List<object>();
        foreach (var task in Tasks)
        {
            using var exam = new Exam(task.HeldOutFile, _data, processor);
            var before = Ask("base", $"{task.Name} held-out", exam, model);
            using var peft = PutLoraOn(model);
            var progress = Train(peft, processor, task);
            var after = Ask(task.Name, "held-out", exam, model);
            var oldAfter = Ask(task.Name, "old questions", old, model);
            results.Add(new
            {
                task.Name, HeldOutBefore = before.Scores, HeldOutAfter = after.Scores, OldBefore = oldBefore.Scores, OldAfter = oldAfter.Scores,
                AdapterBytes = SampleFolders.Bytes(FolderOf(task)), TrainSeconds = progress.Seconds, progress.TokensPerSecond, LastLoss = progress.Losses[^1],
            });
            if (task == Tasks[^1]) Merge(peft, model, exam);
            ownProjector.ApplyTo(model);
        }
        using var process = Process.GetCurrentProcess();
        File.WriteAllText(Path.Combine(_out, "summary.json"), JsonSerializer.Serialize(
            new
            {
                config.Bits, QuantType = config.Bits == 4 ? config.QuantType.Name : "int8", PackedBytes = packed, DenseBytes = dense, Tasks = results,
                Seconds = whole.Elapsed.TotalSeconds, PeakMemoryBytes = process.PeakWorkingSet64,
            },
            Json));
        Say($"whole job {whole.Elapsed.TotalSeconds:F1} s; files in {Path.GetRelativePath(Directory.GetCurrentDirectory(), _out)}");
        return 0;
    }

    private string FolderOf(DemoTask task) => Path.Combine(_out, task.Name);

    private static PeftModel PutLoraOn(LlavaModel model)
    {
        torch.manual_seed(Seed);
        return model.GetPeftModel(new LoraConfig
        {
            Rank = 16,
            Alpha = 32,
            Dropout = 0.05,
            TargetModules = model.FindAllLinearNames(),
            TaskType = "CAUSAL_LM",
            BaseModel = "base",
        });
    }

    private ProgressLine Train(PeftModel peft, LlavaProcessor processor, DemoTask task)
    {
        var data = LlavaDataset.FromJson(Path.Combine(_data, task.TrainingFile), _data, processor);
        var progress = new ProgressLine(task.Name);
        var options = new TrainingOptions
        {
            OutputDirectory = FolderOf(task),
            LearningRate = DemoTask.LearningRate,
            ProjectorLearningRate = DemoTask.ProjectorLearningRate,
            Epochs = task.Epochs,
            BatchSize = DemoTask.BatchSize,
            Schedule = ScheduleKind.Cosine,
            WarmupRatio = 0.03,
            Seed = Seed,
            SaveStrategy = SaveStrategy.None,
        };
        using var trainer = new LLaVATrainer(peft, data, options, progress);
        trainer.Train(stop);
        trainer.SaveModel();
        return progress;
    }

    /// <summary>A dense model again: what was trained is what comes out.</summary>
    private void Merge(PeftModel peft, LlavaModel model, Exam exam)
    {
        // In the dtype that the model computes in.
        var report = peft.MergeAndUnload(MergeTarget.DequantizedBase, model.Dtype);
        Say($"{report}");
        Ask("merged into dense weights", "held-out", exam, model);
    }

    private ExamResult Ask(string who, string what, Exam exam, LlavaModel model)
    {
        var clock = Stopwatch.StartNew();
        var result = exam.Ask(model, stop);
        Say($"{who}: {what}: {result} ({result.Answers.Count} answers, {clock.Elapsed.TotalSeconds:F1} s)");
        return result;
    }

    private static void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));
}
