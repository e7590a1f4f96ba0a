using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Folders of LoRA runs that have trained the projector too: none loads without it unnoticed, and several take turns on one base.</summary>
[Trait("Fault", "llava-18")]
public sealed class TrainedRunsTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void An_adapter_is_not_loaded_without_its_projector()
    {
        string run = Run("card", seed: 11);
        using var tiny = TinyLlava.Create(3);
        string problem = $"{run}: non_lora_trainables.bin beside the adapter holds 4 trained tensor(s) that the model does not have (model.mm_projector.0.weight, …). Load the folder by "
            + "TrainedFolder.Load, several of them by TrainedFolder.LoadRuns or TrainedFolder.Add, which give each adapter its own; or put the values into the model by "
            + "NonLoraTrainables.ApplyTo first.";
        Assert.Equal(problem, Assert.Throws<AdapterFolderException>(() => PeftModel.Load(tiny.Model, run)).Message);
        Assert.Equal(problem, Assert.Throws<AdapterFolderException>(() => PeftModel.TrainOn(tiny.Model, run, TrainOnMode.ContinueSame)).Message);
        using (var alone = PeftModel.Load(tiny.Model, run, options: new AdapterOptions { IgnoreCompanions = true }))
        {
            Assert.Single(alone.AdapterNames);
            Assert.Equal(problem, Assert.Throws<AdapterFolderException>(() => alone.LoadAdapter(run, "again")).Message);
            Assert.Equal(problem, Assert.Throws<AdapterFolderException>(() => alone.HotSwap(run, "default")).Message);
        }
        using (var others = NonLoraTrainables.Load(run)) others.ApplyTo(tiny.Model);
        using var peft = PeftModel.Load(tiny.Model, run);
        using var batch = Batch(tiny);
        Assert.Equal(LossOf(run, batch), Loss(tiny.Model, batch));
    }

    [Fact]
    public void Adapter_and_projector_of_each_run_are_switched_together()
    {
        string card = Run("card", seed: 11), sort = Run("sort", seed: 12);
        using var tiny = TinyLlava.Create(3);
        using var batch = Batch(tiny);
        double before = Loss(tiny.Model, batch), ofCard = LossOf(card, batch), ofSort = LossOf(sort, batch);
        Assert.Equal(3, new[] { before, ofCard, ofSort }.Distinct().Count());
        using (var peft = TrainedFolder.LoadRuns(tiny.Model, new Dictionary<string, string> { ["card"] = card, ["sort"] = sort }))
        {
            Assert.Equal(["card"], peft.ActiveAdapters);
            Assert.Empty(peft.Irregularities);
            Assert.Equal(ofCard, Loss(tiny.Model, batch));
            using (peft.WithAdapters("sort")) Assert.Equal(ofSort, Loss(tiny.Model, batch));
            using (peft.WithoutAdapter()) Assert.Equal(before, Loss(tiny.Model, batch));
            peft.SetActive("sort");
            Assert.Equal(ofSort, Loss(tiny.Model, batch));
            // Three samples, three answers: each row is that of its adapter alone.
            using var scope = NewDisposeScope();
            var mixed = Hidden(tiny.Model, batch, peft.WithAdaptersBySample(["card", "__base__", "sort"]));
            TensorAssert.Close(Hidden(tiny.Model, batch, peft.WithAdapters("card"))[0], mixed[0], 1e-5, 1e-5, "card");
            TensorAssert.Close(Hidden(tiny.Model, batch, peft.WithoutAdapter())[1], mixed[1], 1e-5, 1e-5, "base");
            TensorAssert.Close(Hidden(tiny.Model, batch, peft.WithAdapters("sort"))[2], mixed[2], 1e-5, 1e-5, "sort");
        }
        Assert.Equal(before, Loss(tiny.Model, batch));
        LeakGuard.AssertFlat(2, () => TrainedFolder.LoadRuns(tiny.Model, new Dictionary<string, string> { ["card"] = card, ["sort"] = sort }).Dispose());
    }

    [Fact]
    public void A_run_is_added_to_one_that_is_loaded_and_stands_for_itself_when_saved()
    {
        string card = Run("card", seed: 11), sort = Run("sort", seed: 12);
        using var tiny = TinyLlava.Create(3);
        using var batch = Batch(tiny);
        using var peft = TrainedFolder.Load(tiny.Model, card, "card");
        TrainedFolder.Add(peft, sort, "sort");
        Assert.Equal(LossOf(card, batch), Loss(tiny.Model, batch));
        peft.SetActive("sort");
        double ofSort = LossOf(sort, batch);
        Assert.Equal(ofSort, Loss(tiny.Model, batch));
        peft.Save(_folder.File("saved"), ["sort"]);
        using var fresh = TinyLlava.Create(3);
        using var again = PeftModel.Load(fresh.Model, Path.Combine(_folder.File("saved"), "sort"));
        Assert.Equal(ofSort, Loss(fresh.Model, batch));
    }

    [Fact]
    public void Values_that_no_adapter_can_have_of_its_own_are_refused()
    {
        string run = Run("card", seed: 11);
        using (var scope = NewDisposeScope()) PickleWriter.Write(Path.Combine(run, NonLoraTrainables.FileName), new Dictionary<string, Tensor> { ["base_model.model.model.norm.weight"] = ones(32) * 3 });
        using var tiny = TinyLlava.Create(3);
        Assert.Equal($"{run}: non_lora_trainables.bin holds model.norm.weight, which no adapter can have of its own. Load this run alone, by TrainedFolder.Load.",
            Assert.Throws<AdapterFolderException>(() => TrainedFolder.LoadRuns(tiny.Model, new Dictionary<string, string> { ["card"] = run })).Message);
        Assert.Equal("The runs: there is none; give at least one folder with the name that its adapter gets.",
            Assert.Throws<AdapterFolderException>(() => TrainedFolder.LoadRuns(tiny.Model, new Dictionary<string, string>())).Message);
        using var classifier = nn.Sequential(("q_proj", nn.Linear(4, 4)));
        using var other = classifier.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] });
        Assert.Contains("the adapters are on a Sequential, and runs of LLaVA go on a LlavaModel; call PeftModel.LoadAdapter",
            Assert.Throws<TrainingOptionsException>(() => TrainedFolder.Add(other, run, "card")).Message, StringComparison.Ordinal);
    }

    /// <summary>A folder as a LoRA run leaves it: factors that are not zero, and a projector of its own.</summary>
    private string Run(string name, long seed)
    {
        string folder = _folder.File(name);
        using var tiny = TinyLlava.Create(3);
        using var scope = NewDisposeScope();
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = tiny.Model.FindAllLinearNames() });
        using var generator = new Generator((ulong)seed);
        using (no_grad())
            foreach (var parameter in peft.TrainableParameters().Select(p => p.Parameter).Concat(tiny.Model.Parameters(ModelPart.Projector).Select(p => p.Parameter)))
                parameter.add_(randn(parameter.shape, generator: generator), alpha: 0.2);
        peft.Save(folder);
        tiny.Model.SetTrainable(ModelPart.Projector, true);
        var state = PeftState.GetNonLoraTrainables(peft.NamedParameters());
        PickleWriter.Write(Path.Combine(folder, NonLoraTrainables.FileName), state);
        foreach (var tensor in state.Values) tensor.Dispose();
        return folder;
    }

    private static double LossOf(string run, LlavaBatch batch)
    {
        using var tiny = TinyLlava.Create(3);
        using var peft = TrainedFolder.Load(tiny.Model, run);
        return Loss(tiny.Model, batch);
    }

    private static double Loss(LlavaModel model, LlavaBatch batch)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        return model.LossSum(batch).Sum.ToDouble();
    }

    private static Tensor[] Hidden(LlavaModel model, LlavaBatch batch, IDisposable adapters)
    {
        using var active = adapters;
        using var noGrad = no_grad();
        var logits = model.Forward(batch).Logits!;
        var rows = new List<Tensor>();
        long start = 0;
        foreach (long length in batch.Layout.Lengths)
        {
            rows.Add(logits.narrow(0, start, length));
            start += length;
        }
        return [.. rows];
    }

    private static LlavaBatch Batch(TinyLlava tiny)
    {
        var data = tiny.Dataset(3);
        var encoded = Enumerable.Range(0, data.Count).Select(data.Encode).ToList();
        var batch = new LlavaCollator(tiny.Tokenizer, builder: new LlavaBatchBuilder(tiny.Model.Config)).Collate(encoded);
        encoded.ForEach(e => e.Dispose());
        return batch;
    }
}
