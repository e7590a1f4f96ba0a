using System.Diagnostics;
using System.Globalization;
using Peft.Core;
using Peft.Samples;
using PlainTransformer;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

// LoRA on a transformer of one's own: the base learns to repeat digits, an adapter of a few thousand numbers makes it raise them by three.
const int Steps = 150;
const int Batch = 64;
const int Questions = 512;
PeftEnvironment.EnsureLibtorch();
set_num_threads(1);   // the products are too small to share
manual_seed(1);
var clock = Stopwatch.StartNew();
var repeat = new DigitTask(shift: 0);
var raise = new DigitTask(shift: 3);
string folder = SampleFolders.Output("plain-transformer");

using var model = new TinyTransformer();
Train("base", repeat, model.parameters(), 3e-3);
Show("base", "repeat", repeat, model);
double before = Show("base", "raise by 3", raise, model);

using (var peft = model.GetPeftModel(new LoraConfig { Rank = 4, Alpha = 8, TargetModules = ["query", "value", "up", "down"] }))
{
    Console.WriteLine(peft.Report());
    Train("LoRA", raise, peft.TrainableParameters().Select(p => p.Parameter), 1e-2);
    double after = Show("LoRA", "raise by 3", raise, model);
    Say($"loss {before:F3} -> {after:F3}");
    using (peft.WithoutAdapter()) Show("adapter switched off", "repeat", repeat, model);
    peft.Save(folder);
}
Show("adapter unloaded", "repeat", repeat, model);

// The file on a base that has never been trained with LoRA, then merged into its weights: plain Linear layers again.
using var fresh = new TinyTransformer();
fresh.load_state_dict(model.state_dict());
using var loaded = PeftModel.Load(fresh, folder);
Show("loaded into a fresh model", "raise by 3", raise, fresh);
Say($"{loaded.MergeAndUnload()}");
Show("merged", "raise by 3", raise, fresh);
Say($"{SampleFolders.Bytes(folder):N0} bytes in {Path.GetRelativePath(Directory.GetCurrentDirectory(), folder)}; {clock.Elapsed.TotalSeconds:F1} s");

void Train(string who, DigitTask task, IEnumerable<Parameter> parameters, double rate)
{
    using var optimizer = optim.AdamW(parameters, rate, weight_decay: 0);
    for (int step = 1; step <= Steps; step++)
    {
        using var scope = NewDisposeScope();
        var (loss, _) = task.Ask(model, Batch);
        optimizer.zero_grad();
        loss.backward();
        optimizer.step();
        if (step == 1 || step % 50 == 0) Say($"{who}: step {step}, loss {loss.ToDouble():F3}");
    }
}

double Show(string who, string what, DigitTask task, TinyTransformer asked)
{
    using var noGrad = no_grad();
    using var scope = NewDisposeScope();
    var (loss, exact) = task.Ask(asked, Questions);
    double value = loss.ToDouble();
    Say($"{who}: '{what}': loss {value:F3}, {100 * exact:F1} % of the answers right");
    return value;
}

void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));
