using System.Diagnostics;
using System.Globalization;
using Peft.Core;
using Peft.Samples;
using TorchSharp;
using TorchSharp.Modules;
using VisionClassifier;
using static TorchSharp.torch;

// LoRA on convolutions and linear layers: a classifier that learned the groups of emoji in one drawing style is adapted to another style.
// The held-out emoji are the same in both styles and in no training set.
const int Batch = 32;
PeftEnvironment.EnsureLibtorch();
set_num_threads(1);   // the products are too small to share
manual_seed(3);
var clock = Stopwatch.StartNew();
string data = SampleFolders.Data(), folder = SampleFolders.Output("vision-classifier");
using var noto = Pictures.Read(data, "noto", "train");
using var fluent = Pictures.Read(data, "fluent", "train");
using var notoHeldOut = Pictures.Read(data, "noto", "heldout");
using var fluentHeldOut = Pictures.Read(data, "fluent", "heldout");
Say($"{noto.Count} training and {notoHeldOut.Count} held-out pictures per style, {Pictures.GroupNames.Count} groups");

using var model = new SmallConvNet(Pictures.GroupNames.Count);
Train("base", noto, model.parameters(), rate: 2e-3, epochs: 20);
double notoBefore = Accuracy(model, notoHeldOut), before = Accuracy(model, fluentHeldOut), trainBefore = Accuracy(model, fluent);

using var peft = model.GetPeftModel(new LoraConfig
{
    Rank = 8,
    Alpha = 16,
    Dropout = 0.1,
    TargetModules = ["conv1", "conv2", "conv3", "hidden", "head"],
    RankPattern = new OrderedDictionary<string, int> { ["conv1"] = 4, ["head"] = 4 },
});
Console.WriteLine(peft.Report());
Train("LoRA", fluent, peft.TrainableParameters().Select(p => p.Parameter), rate: 5e-3, epochs: 20);
double after = Accuracy(model, fluentHeldOut), trainAfter = Accuracy(model, fluent);
peft.Save(folder);

// The adapter goes and comes: without it the old style is as good as before, merged the layers are plain ones again.
double notoOff;
using (peft.WithoutAdapter()) notoOff = Accuracy(model, notoHeldOut);
var merged = peft.MergeAndUnload();
double afterMerge = Accuracy(model, fluentHeldOut);

Say($"\n{"% right",-28}{"before",8}{"after",8}");
Say($"{"Fluent, training pictures",-28}{trainBefore,8:F1}{trainAfter,8:F1}");
Say($"{"Fluent, held-out pictures",-28}{before,8:F1}{after,8:F1}");
Say($"{"  the same, merged",-28}{"",8}{afterMerge,8:F1}");
Say($"{"Noto, adapter switched off",-28}{notoBefore,8:F1}{notoOff,8:F1}");
Say($"\n{merged}");
Say($"{SampleFolders.Bytes(folder):N0} bytes in {Path.GetRelativePath(Directory.GetCurrentDirectory(), folder)}; {clock.Elapsed.TotalSeconds:F1} s");

void Train(string who, Pictures pictures, IEnumerable<Parameter> parameters, double rate, int epochs)
{
    model.train();
    using var optimizer = optim.AdamW(parameters, rate, weight_decay: 1e-2);
    for (int epoch = 1; epoch <= epochs; epoch++)
    {
        using var scope = NewDisposeScope();
        double sum = 0;
        var parts = randperm(pictures.Count).split(Batch);
        foreach (var rows in parts)
        {
            var (pixels, groups) = pictures.Sample(rows);
            var loss = nn.functional.cross_entropy(model.call(pixels), groups);
            optimizer.zero_grad();
            loss.backward();
            optimizer.step();
            sum += loss.ToDouble();
        }
        if (epoch == 1 || epoch % 10 == 0) Say($"{who}: epoch {epoch}, loss {sum / parts.Length:F3}");
    }
}

double Accuracy(SmallConvNet asked, Pictures pictures)
{
    using var noGrad = no_grad();
    using var scope = NewDisposeScope();
    asked.eval();
    return 100 * asked.call(pictures.Pixels).argmax(1).eq(pictures.Groups).to(ScalarType.Float32).mean().ToDouble();
}

void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));
