using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Peft.Core;
using Peft.Llava;
using Peft.Samples;
using TorchSharp;

namespace ManyAdapters;

/// <summary>The whole job: three adapters on one base, and what can be done with them together.</summary>
internal sealed class ManyAdaptersJob : IDisposable
{
    private const int Pictures = 10;
    private static readonly JsonSerializerOptions Json = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
    private readonly int? _steps;
    private readonly CancellationToken _stop;
    private readonly string _out = SampleFolders.Output("many-adapters");
    private readonly LlavaModel _model;
    private readonly SampleEncoder _encoder;
    private readonly Asker _asker;
    private readonly IReadOnlyList<PictureTask> _tasks;

    public ManyAdaptersJob(int? steps, CancellationToken stop)
    {
        (_steps, _stop) = (steps, stop);
        string data = SampleFolders.Data(), folder = Path.Combine(data, "base");
        _model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = torch.ScalarType.Float32 });
        _encoder = new SampleEncoder(LlavaProcessor.FromFolder(folder), data);
        _asker = new Asker(_model, _encoder, stop);
        _tasks = PictureTask.Read(data);
    }

    public void Run()
    {
        var clock = Stopwatch.StartNew();
        var learned = _tasks.Skip(1).ToList();
        foreach (var task in learned.Where(t => _steps is not null || !File.Exists(Path.Combine(FolderOf(t), "adapter_model.safetensors")))) Train(task);

        using var peft = PeftModel.Load(_model, FolderOf(learned[0]), learned[0].Name);
        foreach (var task in learned.Skip(1)) peft.LoadAdapter(FolderOf(task), task.Name);
        var mixed = Mix(peft);
        var combinations = Combine(peft);
        var scales = Scale(peft);
        File.WriteAllText(Path.Combine(_out, "summary.json"), JsonSerializer.Serialize(new { mixed, combinations, scales, clock.Elapsed.TotalSeconds }, Json));
        Say($"\n{clock.Elapsed.TotalSeconds:F1} s; files in {Path.GetRelativePath(Directory.GetCurrentDirectory(), _out)}");
    }

    public void Dispose()
    {
        _asker.Dispose();
        _model.Dispose();
    }

    private string FolderOf(PictureTask task) => Path.Combine(_out, task.Name);

    // The projector stays the base's own: it is one for all samples of a batch.
    private void Train(PictureTask task)
    {
        torch.manual_seed(2);
        using var peft = _model.GetPeftModel(new LoraConfig
        {
            Rank = 16,
            Alpha = 32,
            TargetModules = _model.FindAllLinearNames(),
            TaskType = "CAUSAL_LM",
            BaseModel = "base",
        });
        var options = new TrainingOptions
        {
            OutputDirectory = FolderOf(task),
            Trainable = TrainableParts.Lora(projector: false),
            LearningRate = 3e-3,
            MaxSteps = _steps ?? task.Steps,
            BatchSize = 16,
            Schedule = ScheduleKind.Cosine,
            WarmupRatio = 0.03,
            SaveStrategy = SaveStrategy.None,
        };
        using var trainer = new LLaVATrainer(peft, new LlavaDataset(task.Training, _encoder), options, new ProgressLine(task.Name));
        trainer.Train(_stop);
        trainer.SaveModel();
    }

    /// <summary>Four questions about each picture in one batch, each answered by another adapter or the base; then each adapter alone.</summary>
    private object Mix(PeftModel peft)
    {
        var questions = _tasks.SelectMany(t => Some(t)).ToList();
        string[] adapters = [.. _tasks.SelectMany(t => Enumerable.Repeat(t.Name, Pictures))];
        var clock = Stopwatch.StartNew();
        var answers = _asker.Ask(questions, peft, adapters);
        double seconds = clock.Elapsed.TotalSeconds;

        var alone = _tasks.SelectMany(task =>
        {
            using var scope = task.Name == "__base__" ? peft.WithoutAdapter() : peft.WithAdapters(task.Name);
            return _asker.Ask(Some(task));
        }).ToList();
        int equal = answers.Zip(alone).Count(pair => pair.First == pair.Second);

        Console.WriteLine("\nOne batch, an adapter for each sample ('*': not the expected answer)");
        var rows = Enumerable.Range(0, Pictures).Select(p => _tasks.Select((_, t) => Marked(questions[(t * Pictures) + p], answers[(t * Pictures) + p])).ToArray()).ToList();
        WriteTable([[.. _tasks.Select(t => t.Name == "__base__" ? "base" : t.Name)], .. rows]);
        Say($"{questions.Count} answers in {seconds:F2} s; {equal} of them equal those of each adapter alone");
        return new { Answers = questions.Select((q, i) => new { q.Id, Adapter = adapters[i], Answer = answers[i], Expected = q.Turns[1].Value }), EqualAlone = equal, Seconds = seconds };
    }

    /// <summary>Sums and differences of adapters. "cat" is exact: what was added and subtracted again leaves nothing behind.</summary>
    private List<object> Combine(PeftModel peft)
    {
        peft.AddWeightedAdapter(["card", "sort"], [0.5, 0.5], "both", CombinationType.Cat);
        peft.AddWeightedAdapter(["both", "sort"], [2, -1], "card_again", CombinationType.Cat);
        peft.AddWeightedAdapter(["card", "sort"], [1, -0.3], "linear", CombinationType.Linear);
        (string Name, string What)[] rows =
        [
            ("card", ""), ("sort", ""), ("colour", ""), ("both", "cat: 0.5 card + 0.5 sort"), ("card_again", "cat: 2 both - sort"), ("linear", "linear: card - 0.3 sort"),
        ];
        var results = rows.Select(row =>
        {
            using var scope = peft.WithAdapters(row.Name);
            return (row.Name, row.What, Rank: peft.ConfigOf(row.Name).Rank, Scores: _tasks.Select(Score).ToArray());
        }).ToList();
        Console.WriteLine("\n% of 65 held-out questions answered exactly");
        WriteTable(
        [
            ["adapter", "made of", "rank", .. _tasks.Select(t => t.Name == "__base__" ? "name (old)" : t.Name)],
            .. results.Select(r => (string[])[r.Name, r.What, $"{r.Rank}", .. r.Scores.Select(Number)]),
        ]);
        return [.. results.Select(r => new { r.Name, MadeOf = r.What, r.Rank, Scores = _tasks.Zip(r.Scores).ToDictionary(p => p.First.Name, p => p.Second) })];
    }

    private Dictionary<string, double> Scale(PeftModel peft)
    {
        peft.SetActive("card");
        var card = _tasks.First(t => t.Name == "card");
        var scores = new Dictionary<string, double>();
        foreach (double factor in (double[])[0, 0.5, 1, 1.5])
        {
            peft.SetScale("card", factor);
            scores[factor.ToString(CultureInfo.InvariantCulture)] = Score(card);
        }
        peft.ResetScale();
        Say($"\nscale of card: {string.Join(", ", scores.Select(s => $"{s.Key}: {Number(s.Value)} %"))}");
        return scores;
    }

    private double Score(PictureTask task)
    {
        var questions = task.HeldOut.Where((_, i) => i % 2 == 0).ToList();
        return 100.0 * questions.Zip(_asker.Ask(questions)).Count(pair => pair.First.Turns[1].Value == pair.Second) / questions.Count;
    }

    /// <summary>Pictures spread over the held-out ones, the same for every task.</summary>
    private static IReadOnlyList<LlavaSample> Some(PictureTask task) => [.. task.HeldOut.Where((_, i) => i % (task.HeldOut.Count / Pictures) == 0).Take(Pictures)];

    private static string Marked(LlavaSample question, string answer) => question.Turns[1].Value == answer ? answer : answer + " *";

    private static string Number(double value) => value.ToString("F1", CultureInfo.InvariantCulture);

    private static void WriteTable(IReadOnlyList<string[]> rows)
    {
        var widths = Enumerable.Range(0, rows[0].Length).Select(column => rows.Max(r => r[column].Length)).ToArray();
        foreach (string[] row in rows) Console.WriteLine(string.Join("  ", row.Select((cell, i) => cell.PadRight(widths[i]))).TrimEnd());
    }

    private static void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));
}
