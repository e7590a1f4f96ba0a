using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Peft.Core;
using Peft.Llava;
using Peft.Samples;
using TorchSharp;

namespace FinetuneLora;

/// <summary>
/// The whole job: what the base can do, LoRA on the task "card", its files loaded into a fresh model, LoRA on the task "sort" on the same base,
/// and both adapters switched at run time.
/// </summary>
internal sealed class DemoJob(CancellationToken stop)
{
    private const int Rank = 16;
    private const int Alpha = 32;
    private const double Dropout = 0.05;
    private const int Seed = 0;
    private const int ContactPictures = 10;
    private readonly string _data = SampleFolders.Data();
    private readonly string _out = SampleFolders.Output("finetune-lora");
    private readonly DemoSummary _summary = new();

    private string Base => Path.Combine(_data, "base");

    public int Run()
    {
        var whole = Stopwatch.StartNew();
        var machine = PeftEnvironment.Diagnose();
        Say($"libtorch {machine.LibtorchFound}, {machine.Threads.Operation} threads, {string.Join(" ", machine.Simd)}");

        var clock = Stopwatch.StartNew();
        using var model = Load();
        var processor = LlavaProcessor.FromFolder(Base);
        _summary.BaseBytes = SampleFolders.Bytes(Base);
        Say($"base: {model.named_parameters().Sum(p => p.parameter.numel()):N0} parameters, {_summary.BaseBytes:N0} bytes, loaded in {clock.Elapsed.TotalSeconds:F2} s");

        using var cardExam = new Exam(DemoTask.Card.HeldOutFile, _data, processor);
        using var sortExam = new Exam(DemoTask.Sort.HeldOutFile, _data, processor);
        using var oldExam = new Exam("noto_eval.json", _data, processor);
        using var otherStyle = new Exam("fluent_eval.json", _data, processor);
        var cardBefore = Ask("base", "card held-out", cardExam, model);
        var sortBefore = Ask("base", "sort held-out", sortExam, model);
        var oldBefore = Ask("base", "old questions", oldExam, model);
        var otherBefore = Ask("base", "old questions, unseen style", otherStyle, model);
        ComparePeer([cardBefore, sortBefore, oldBefore, otherBefore]);

        // Each run trains the projector too; the base gets its own back afterwards.
        using var ownProjector = NonLoraTrainables.CopyOf(model);
        var cardRun = Finetune(model, processor, DemoTask.Card);
        ownProjector.ApplyTo(model);

        ExamResult cardAfter, oldAfterCard;
        using (var fresh = Load())
        using (TrainedFolder.Load(fresh, FolderOf(DemoTask.Card), "card"))
        {
            cardAfter = Ask("card, loaded into a fresh model", "held-out", cardExam, fresh);
            oldAfterCard = Ask("card, loaded into a fresh model", "old questions", oldExam, fresh);
        }

        var sortRun = Finetune(model, processor, DemoTask.Sort);

        // Both adapters on the one base, which is never loaded again; each has its own projector.
        ownProjector.ApplyTo(model);
        using var peft = TrainedFolder.LoadRuns(model, new Dictionary<string, string> { ["card"] = FolderOf(DemoTask.Card), ["sort"] = FolderOf(DemoTask.Sort) });
        Switch(peft, "sort");
        var sortAfter = Ask("sort", "held-out", sortExam, model);
        var oldAfterSort = Ask("sort", "old questions", oldExam, model);
        Switch(peft, "card");
        var cardAgain = Ask("switched to card", "held-out", cardExam, model);
        _summary.SwitchedAnswersEqual = cardAgain.Answers.Zip(cardAfter.Answers).All(pair => pair.First.Answer == pair.Second.Answer);

        _summary.Add(cardRun, cardBefore, cardAfter, oldBefore, oldAfterCard);
        _summary.Add(sortRun, sortBefore, sortAfter, oldBefore, oldAfterSort);
        Draw(cardRun, sortRun, cardBefore, cardAfter, sortBefore, sortAfter);
        _summary.Seconds = whole.Elapsed.TotalSeconds;
        _summary.PeakMemoryBytes = PeakMemory();
        _summary.Write(Path.Combine(_out, "summary.json"));
        Console.WriteLine();
        Console.Write(_summary.Table());
        Say($"\nwhole job {_summary.Seconds:F1} s, peak memory {_summary.PeakMemoryBytes / 1e6:F0} MB; files in {Path.GetRelativePath(Directory.GetCurrentDirectory(), _out)}");
        return 0;
    }

    private LlavaModel Load() => LlavaModel.Load(Base, new LlavaLoadOptions { Dtype = torch.ScalarType.Float32 });

    private string FolderOf(DemoTask task) => Path.Combine(_out, task.Name);

    private DemoRun Finetune(LlavaModel model, LlavaProcessor processor, DemoTask task)
    {
        torch.manual_seed(Seed);
        using var peft = model.GetPeftModel(new LoraConfig
        {
            Rank = Rank,
            Alpha = Alpha,
            Dropout = Dropout,
            TargetModules = model.FindAllLinearNames(),
            TaskType = "CAUSAL_LM",
            BaseModel = "base",
        });
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
        Console.WriteLine();
        trainer.Train(stop);
        trainer.SaveModel();
        long bytes = SampleFolders.Bytes(FolderOf(task));
        Say($"{task.Name}: saved {bytes:N0} bytes, {100.0 * bytes / _summary.BaseBytes:F1} % of the base");
        return new DemoRun(task, progress, bytes);
    }

    private static void Switch(PeftModel peft, string adapter)
    {
        var clock = Stopwatch.StartNew();
        peft.SetActive(adapter);
        Say($"\nswitched to '{adapter}' in {clock.Elapsed.TotalMilliseconds:F1} ms");
    }

    private ExamResult Ask(string who, string what, Exam exam, LlavaModel model)
    {
        var clock = Stopwatch.StartNew();
        var result = exam.Ask(model, stop);
        Say($"{who}: {what}: {result} ({result.Answers.Count} answers, {clock.Elapsed.TotalSeconds:F1} s)");
        return result;
    }

    /// <summary>How many of the base's answers are those that LLaVA's own Python code gave.</summary>
    private void ComparePeer(IReadOnlyList<ExamResult> results)
    {
        var recorded = JsonSerializer.Deserialize<Dictionary<string, string>>(File.ReadAllBytes(Path.Combine(_data, "base_answers.json")))!;
        var answers = results.SelectMany(r => r.Answers).ToList();
        int equal = answers.Count(a => a.Answer == recorded[a.Sample.Id]);
        _summary.PeerAnswersEqual = 100.0 * equal / answers.Count;
        Say($"base: {equal} of {answers.Count} answers equal those of LLaVA's Python code ({_summary.PeerAnswersEqual:F2} %)");
    }

    private void Draw(DemoRun card, DemoRun sort, ExamResult cardBefore, ExamResult cardAfter, ExamResult sortBefore, ExamResult sortAfter)
    {
        LossCurve.Write(Path.Combine(_out, "loss.png"), "Training loss", new LossSeries("card", card.Progress.Losses), new LossSeries("sort", sort.Progress.Losses));
        ContactSheet.Write(Path.Combine(_out, "answers.png"), "Held-out pictures", "no training file shows one of them with these questions",
            [.. Contacts(cardBefore, cardAfter), .. Contacts(sortBefore, sortAfter)]);
    }

    /// <summary>Pictures spread evenly over an exam.</summary>
    private IEnumerable<ContactItem> Contacts(ExamResult before, ExamResult after)
        => before.Answers.Zip(after.Answers).Where((_, i) => i % (before.Answers.Count / ContactPictures) == 0).Take(ContactPictures)
            .Select(pair => new ContactItem(
                ImageDecoder.Decode(Path.Combine(_data, pair.First.Sample.Images[0])),
                pair.First.Sample.Turns[0].Value.Replace("<image>", "", StringComparison.Ordinal).Trim(),
                [new ContactAnswer("before", pair.First.Answer, pair.First.IsExact), new ContactAnswer("after", pair.Second.Answer, pair.Second.IsExact)]));

    private static long PeakMemory()
    {
        using var process = Process.GetCurrentProcess();
        return process.PeakWorkingSet64;
    }

    private static void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));
}
