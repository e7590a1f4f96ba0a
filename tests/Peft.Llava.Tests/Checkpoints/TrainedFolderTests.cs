using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class TrainedFolderTests : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("peft-trained-");

    public void Dispose() => _folder.Delete(recursive: true);

    private static LoraConfig Config(LlavaModel model) => new() { Rank = 3, Alpha = 7, TargetModules = model.FindAllLinearNames() };

    /// <summary>Non-zero factors and a changed projector, written as a LoRA run of LLaVA writes them; gives the model's loss with them.</summary>
    private double Train(TinyLlava tiny, LlavaBatch batch)
    {
        using var scope = NewDisposeScope();
        using var peft = tiny.Model.GetPeftModel(Config(tiny.Model));
        using (no_grad())
        {
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(randn_like(parameter), alpha: 0.2);
            foreach (var (_, parameter) in tiny.Model.Parameters(ModelPart.Projector)) parameter.add_(randn_like(parameter), alpha: 0.1);
        }
        peft.Save(_folder.FullName);
        tiny.Model.SetTrainable(ModelPart.Projector, true);
        var state = PeftState.GetNonLoraTrainables(peft.NamedParameters());
        PickleWriter.Write(Path.Combine(_folder.FullName, NonLoraTrainables.FileName), state);
        foreach (var tensor in state.Values) tensor.Dispose();
        return Loss(tiny.Model, batch);
    }

    private static double Loss(LlavaModel model, LlavaBatch batch)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        return model.LossSum(batch).Sum.ToDouble();
    }

    private static LlavaBatch Batch(TinyLlava tiny)
    {
        var data = tiny.Dataset(3);
        var encoded = Enumerable.Range(0, data.Count).Select(data.Encode).ToList();
        var batch = new LlavaCollator(tiny.Tokenizer, builder: new LlavaBatchBuilder(tiny.Model.Config)).Collate(encoded);
        encoded.ForEach(e => e.Dispose());
        return batch;
    }

    [Fact]
    public void A_run_loaded_onto_a_fresh_base_gives_the_run_s_loss_whatever_its_folder_is_called()
    {
        using var tiny = TinyLlava.Create(3);
        using var batch = Batch(tiny);
        double before = Loss(tiny.Model, batch);
        double trained = Train(tiny, batch);
        Assert.NotEqual(before, trained);

        using var fresh = TinyLlava.Create(3);
        string renamed = Path.Combine(_folder.FullName, "neither-of-the-words");
        Directory.CreateDirectory(renamed);
        foreach (string file in Directory.EnumerateFiles(_folder.FullName)) File.Move(file, Path.Combine(renamed, Path.GetFileName(file)));
        using var peft = TrainedFolder.Load(fresh.Model, renamed, "colors");
        Assert.Equal(["colors"], peft.ActiveAdapters);
        Assert.Equal(trained, Loss(fresh.Model, batch), 1e-4);
        Assert.Empty(peft.TrainableParameters());
    }

    [Fact]
    public void A_copy_of_the_projector_gives_the_base_back()
    {
        using var tiny = TinyLlava.Create(3);
        using var batch = Batch(tiny);
        double before = Loss(tiny.Model, batch);
        using var own = NonLoraTrainables.CopyOf(tiny.Model);
        Assert.Equal(["model.mm_projector.0.weight", "model.mm_projector.0.bias", "model.mm_projector.2.weight", "model.mm_projector.2.bias"], own.Tensors.Keys);
        Train(tiny, batch);
        Assert.NotEqual(before, Loss(tiny.Model, batch));
        own.ApplyTo(tiny.Model);
        Assert.Equal(before, Loss(tiny.Model, batch));
    }

    [Fact]
    public void Values_of_another_model_are_refused_and_leave_model_and_adapters_as_they_were()
    {
        using var tiny = TinyLlava.Create(3);
        using var batch = Batch(tiny);
        Train(tiny, batch);
        using var fresh = TinyLlava.Create(4);
        double before = Loss(fresh.Model, batch);
        using (var scope = NewDisposeScope())
        {
            PickleWriter.Write(Path.Combine(_folder.FullName, NonLoraTrainables.FileName), new Dictionary<string, Tensor>
            {
                ["base_model.model.model.mm_projector.0.bias"] = ones(5),
                ["base_model.model.model.mm_projector.9.bias"] = ones(32),
            });
        }
        var e = Assert.Throws<CheckpointMismatchException>(() => TrainedFolder.Load(fresh.Model, _folder.FullName));
        Assert.Equal(["model.mm_projector.9.bias"], e.UnexpectedTensors);
        Assert.Equal(["model.mm_projector.0.bias: the file has (5), the model wants (32)"], e.ShapeFaults);
        Assert.Equal($"{Path.Combine(_folder.FullName, NonLoraTrainables.FileName)}: 2 tensor(s) do not fit the model that the configuration describes.\n  unexpected: model.mm_projector.9.bias\n"
            + "  shape: model.mm_projector.0.bias: the file has (5), the model wants (32)\nCheck that config.json and weights belong together and that no shard is missing.", e.Message);
        Assert.Equal(before, Loss(fresh.Model, batch));
        fresh.Model.GetPeftModel(Config(fresh.Model)).Dispose();   // no adapters are left on it
    }

    [Fact]
    public void Loading_and_taking_off_leaves_no_tensor_behind()
    {
        using var tiny = TinyLlava.Create(3);
        using var batch = Batch(tiny);
        Train(tiny, batch);
        LeakGuard.AssertFlat(3, () => TrainedFolder.Load(tiny.Model, _folder.FullName).Dispose());
    }
}
