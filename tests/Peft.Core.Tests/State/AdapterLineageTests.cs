using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Training on from an adapter, the base an adapter belongs to, and adapters whose init changed the base.</summary>
public sealed class AdapterLineageTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["first", "blocks.0"], TaskType = "CAUSAL_LM" };

    private readonly string _folder = Directory.CreateTempSubdirectory("peft-lineage-").FullName;
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly TinyNet _net = new();

    private string Next => Path.Combine(_folder, "next");

    public void Dispose()
    {
        _net.Dispose();
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void The_same_adapter_is_trained_on()
    {
        var (x, wanted) = SaveParent();
        using var peft = PeftModel.TrainOn(_net, _folder, TrainOnMode.ContinueSame);
        TensorAssert.Close(wanted, _net.call(x), 1e-6, 0, "output");
        Assert.Equal(4, peft.TrainableParameters().Count());
        peft.Save(Next);
        Assert.Equal(new AdapterLineage(null, _folder, TrainOnMode.ContinueSame), AdapterLineage.Read(Next));
    }

    [Fact]
    public void A_new_adapter_goes_on_the_merged_base()
    {
        var (x, wanted) = SaveParent();
        using var peft = PeftModel.TrainOn(_net, _folder, TrainOnMode.MergeThenNew, Config with { TargetModules = ["up"] }, options: new AdapterOptions { BaseFingerprint = "abc" });
        TensorAssert.Close(wanted, _net.call(x), 1e-5, 0, "output");
        Assert.All(peft.TrainableParameters(), p => Assert.Contains(".tail.up.", p.Name));
        Assert.Equal(["default"], peft.AdapterNames);
        Assert.Equal(new AdapterLineage("abc", _folder, TrainOnMode.MergeThenNew), peft.LineageOf("default"));
    }

    [Fact]
    public void A_new_adapter_is_stacked_on_the_frozen_one()
    {
        var (x, wanted) = SaveParent();
        using (var peft = PeftModel.TrainOn(_net, _folder, TrainOnMode.StackNew, Config with { TargetModules = ["up"] }))
        {
            TensorAssert.Close(wanted, _net.call(x), 1e-5, 0, "output");
            Assert.Equal(["parent", "default"], peft.ActiveAdapters);
            Assert.All(peft.TrainableParameters(), p => Assert.Contains(".default.", p.Name));
            peft.Save(Next, ["default"]);
        }
        using var loaded = PeftModel.Load(_net, Next);
        Assert.Equal([$"adapter 'default' goes on from the adapter in {_folder} (StackNew), which has to be on the base as well"], loaded.Irregularities);
    }

    [Fact]
    public void Settings_are_asked_for_where_they_are_needed()
    {
        SaveParent();
        Assert.Equal("StackNew trains a new adapter; give its settings.", Assert.Throws<AdapterStateException>(() => PeftModel.TrainOn(_net, _folder, TrainOnMode.StackNew)).Message);
        Assert.Equal("ContinueSame trains the adapter with its own settings; give none.",
            Assert.Throws<AdapterStateException>(() => PeftModel.TrainOn(_net, _folder, TrainOnMode.ContinueSame, Config)).Message);
    }

    [Fact]
    public void A_new_adapter_that_fits_nothing_leaves_the_model_without_its_parent_too()
    {
        var (x, _) = SaveParent();
        var plain = _net.call(x);
        Assert.Equal("target_modules [frist] matches none of the 6 fitting modules. Names present: 0, 1, down, first, narrow, up. Probably meant: first for frist.",
            Assert.Throws<TargetNotFoundException>(() => PeftModel.TrainOn(_net, _folder, TrainOnMode.StackNew, Config with { TargetModules = ["frist"] })).Message);
        TensorAssert.Equal(plain, _net.call(x), "output");
        _net.GetPeftModel(Config).Dispose();   // no adapters are left on it
    }

    [Fact]
    public void An_adapter_of_another_base_is_refused()
    {
        using (var peft = _net.GetPeftModel(Config, options: new AdapterOptions { BaseFingerprint = "abc" })) peft.Save(_folder);
        var e = Assert.Throws<WrongBaseException>(() => PeftModel.Load(_net, _folder, options: new AdapterOptions { BaseFingerprint = "def" }));
        Assert.Equal($"{_folder}: the adapter was made on a base with fingerprint abc, and this base has def; its output would be wrong. Load it onto its own base, or set "
            + "AdapterOptions.AllowOtherBase if you know better.", e.Message);
        PeftModel.Load(_net, _folder, options: new AdapterOptions { BaseFingerprint = "def", AllowOtherBase = true }).Dispose();
        PeftModel.Load(_net, _folder, options: new AdapterOptions { BaseFingerprint = "abc" }).Dispose();
        PeftModel.Load(_net, _folder).Dispose();
    }

    [Fact]
    public void A_damaged_lineage_is_said()
    {
        SaveParent();
        File.WriteAllText(Path.Combine(_folder, AdapterLineage.FileName), "{\"mode\": \"Sideways\"}");
        string message = Assert.Throws<AdapterFolderException>(() => PeftModel.Load(_net, _folder)).Message;
        Assert.StartsWith($"{_folder}: adapter_lineage.json is damaged (", message);
        Assert.EndsWith("). Remove it to load the adapter without its lineage.", message);
    }

    [Theory]
    [InlineData("pissa", false)]
    [InlineData("pissa", true)]
    [InlineData("olora", false)]
    public void An_adapter_that_changed_its_base_is_saved_as_a_plain_one(string init, bool rootScaling)
    {
        manual_seed(2);
        var x = randn(3, 7);
        Tensor wanted;
        using (var peft = _net.GetPeftModel(Config with { Init = new LoraInit(init), UseRsLora = rootScaling, AlphaPattern = new Dictionary<string, double> { ["first"] = 5 } }))
        {
            using (no_grad())
                foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(randn_like(parameter) * 0.1);
            wanted = _net.call(x);
            peft.SaveAsPlain(_folder);
        }
        using var loaded = PeftModel.Load(_net, _folder);
        TensorAssert.Close(wanted, _net.call(x), 1e-5, 0, "output");
        Assert.Equal(4, loaded.LayerAt("first")!.Adapters["default"].Rank);
        Assert.Equal(LoraInit.Default, loaded.ConfigOf("default").Init);
    }

    [Fact]
    public void What_has_no_plain_form_is_said()
    {
        using (var peft = _net.GetPeftModel(Config))
        {
            Assert.Equal("Adapter 'default' was begun by init_lora_weights 'true', which leaves the base as it is or quantises it; use Save.",
                Assert.Throws<AdapterStateException>(() => peft.SaveAsPlain(_folder)).Message);
        }
        using var dora = _net.GetPeftModel(Config with { Init = LoraInit.Pissa, UseDora = true });
        Assert.Equal("Adapter 'default' has use_dora, which has no plain form on the unchanged base; use Save.", Assert.Throws<AdapterStateException>(() => dora.SaveAsPlain(_folder)).Message);
    }

    [Fact]
    public void B_learns_faster_with_LoRA_plus()
    {
        using var peft = _net.GetPeftModel(Config with { LoraBOwnBias = true });
        var groups = LoraPlus.Groups(peft, 1e-4, ratio: 8, weightDecay: 0.1);
        Assert.Equal([("A", 2, 1e-4, 0.1), ("B", 2, 8e-4, 0.1), ("B without decay", 2, 8e-4, 0.0)], groups.Select(g => (g.Name, g.Parameters.Count, g.LearningRate, g.WeightDecay)));
        Assert.Equal("ratio ('0.5') must be greater than or equal to '1'. (Parameter 'ratio')\nActual value was 0.5.", Assert.Throws<ArgumentOutOfRangeException>(() => LoraPlus.Groups(peft, 1, 0.5)).Message);
    }

    private (Tensor Input, Tensor Output) SaveParent()
    {
        manual_seed(3);
        using var peft = _net.GetPeftModel(Config);
        TinyNet.Randomise(peft);
        peft.Save(_folder);
        var x = randn(3, 7);
        return (x, _net.call(x));
    }
}
