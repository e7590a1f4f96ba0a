using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class PeftModelTests
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["first", "blocks.0", "down"] };

    private static (TinyNet Net, PeftModel Peft) Two()
    {
        manual_seed(11);
        var net = new TinyNet();
        var peft = net.GetPeftModel(Config);
        peft.AddAdapter("second", Config with { Alpha = 5, TargetModules = ["first", "up"] });
        TinyNet.Randomise(peft);
        return (net, peft);
    }

    [Fact]
    public void A_source_of_masks_is_needed()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["first"] });
        Assert.Equal("Value cannot be null. (Parameter 'value')", Assert.Throws<ArgumentNullException>(() => peft.Dropout = null!).Message);
    }

    [Fact]
    public void A_new_adapter_changes_nothing_until_it_is_trained()
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        var x = randn(3, 7);
        var before = net.call(x);
        using var peft = net.GetPeftModel(Config);
        TensorAssert.Close(before, net.call(x), 1e-6, 0, "output");
        Assert.Equal(6, peft.TrainableParameters().Count());
        Assert.All(peft.TrainableParameters(), p => Assert.Contains("lora_", p.Name));
    }

    [Fact]
    public void Disposing_restores_the_model_module_for_module_and_bit_for_bit()
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        net.parameters().First().requires_grad = false;
        var modules = ModuleTree.Modules(net).ToList();
        var flags = net.parameters().Select(p => p.requires_grad).ToList();
        var weights = net.parameters().Select(p => p.clone()).ToList();
        using (var peft = net.GetPeftModel(Config with { Bias = LoraBias.All, Init = LoraInit.Pissa }))
        {
            using var noGrad = no_grad();
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(0.5);
            peft.Merge();
        }
        Assert.Equal(modules, ModuleTree.Modules(net));
        Assert.Equal(flags, net.parameters().Select(p => p.requires_grad));
        foreach (var (was, now) in weights.Zip(net.parameters())) TensorAssert.Equal(was, now, "parameter");
    }

    [Fact]
    public void A_second_handle_on_the_same_model_is_refused()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config);
        Assert.Equal("The model carries adapters already (default at first). Add others by AddAdapter or LoadAdapter of the PeftModel that is there, or unload them first (dispose it).",
            Assert.Throws<AdapterStateException>(() => net.GetPeftModel(Config)).Message);
        Assert.Equal(6, peft.TrainableParameters().Count());
    }

    [Fact]
    public void After_unloading_the_handle_is_of_no_use()
    {
        using var net = new TinyNet();
        var peft = net.GetPeftModel(Config);
        peft.Unload();
        Assert.Equal("Cannot access a disposed object.\nObject name: 'Peft.Core.PeftModel'.", Assert.Throws<ObjectDisposedException>(() => peft.Merge()).Message);
    }

    [Theory]
    [InlineData("", "the name is empty")]
    [InlineData("a.b", "a dot would end it in the names of the parameters")]
    [InlineData("a/b", "a slash would end it in the path of its folder")]
    [InlineData("lora", "PEFT uses that word in the names of the parameters")]
    [InlineData("lora_A", "PEFT uses that word in the names of the parameters")]
    [InlineData("weight", "PEFT uses that word in the names of the parameters")]
    [InlineData("__base__", "PEFT uses that word in the names of the parameters")]
    [InlineData("default", "the model has an adapter of that name; delete or rename it first")]
    public void A_name_that_cannot_be_is_refused(string name, string reason)
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config);
        string message = $"An adapter cannot be called '{name}': {reason}. Choose another name.";
        Assert.Equal(message, Assert.Throws<AdapterNameException>(() => peft.AddAdapter(name, Config)).Message);
        Assert.Equal(message, Assert.Throws<AdapterNameException>(() => peft.RenameAdapter("default", name)).Message);
        Assert.Equal(["default"], peft.AdapterNames);
    }

    [Fact]
    public void A_second_adapter_beside_trained_biases_is_refused()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config with { Bias = LoraBias.LoraOnly });
        Assert.Equal("LoraConfig: adapter 'default' trains the base's biases, which it would share with the other adapter; an adapter with bias must be the only one.",
            Assert.Throws<InvalidLoraConfigException>(() => peft.AddAdapter("b", Config)).Message);
        using var other = new TinyNet();
        using var plain = other.GetPeftModel(Config);
        Assert.StartsWith("LoraConfig: adapter 'b' trains", Assert.Throws<InvalidLoraConfigException>(() => plain.AddAdapter("b", Config with { Bias = LoraBias.All })).Message);
    }

    [Fact]
    public void Unknown_adapters_are_named_with_those_there_are()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config);
        const string message = "There is no adapter 'nope'; there is default.";
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.SetActive("nope")).Message);
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.DeleteAdapter("nope")).Message);
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.Merge(["nope"])).Message);
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.WithAdapters("nope")).Message);
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.WithAdaptersBySample(["nope"])).Message);
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.GetAdapterState("nope")).Message);
        Assert.Equal(message, Assert.Throws<AdapterNotFoundException>(() => peft.Layers.First().DeltaWeight("nope")).Message);
        Assert.Equal(["default"], peft.ActiveAdapters);
    }

    [Fact]
    public void Scopes_put_back_what_they_found_also_when_something_throws_inside()
    {
        using var scope = NewDisposeScope();
        var (net, peft) = Two();
        var x = randn(3, 7);
        var active = net.call(x);
        peft.Merge(["default", "second"]);
        var merged = net.call(x);
        Assert.Equal("the caller's own", Assert.Throws<InvalidOperationException>(Inside).Message);
        Assert.Equal(["default", "second"], peft.MergedAdapters);
        TensorAssert.Equal(merged, net.call(x), "merged output");
        peft.Unmerge();
        using (peft.WithAdapters("second", "default")) TensorAssert.Close(merged, net.call(x), 1e-5, 0, "both adapters");
        TensorAssert.Equal(active, net.call(x), "output");
        peft.Dispose();
        net.Dispose();

        void Inside()
        {
            using (peft.WithoutAdapter())
            {
                Assert.Empty(peft.MergedAdapters);
                throw new InvalidOperationException("the caller's own");
            }
        }
    }

    [Fact]
    public void What_the_state_forbids_is_said_with_the_next_step()
    {
        var (net, peft) = Two();
        Assert.Equal("No adapter is merged, so there is nothing to take out.", Assert.Throws<AdapterStateException>(peft.Unmerge).Message);
        peft.Merge(["second"]);
        Assert.Equal("Adapter 'second' is merged already; merging it again would double it. Call Unmerge first.", Assert.Throws<AdapterStateException>(() => peft.Merge(["second"])).Message);
        Assert.Equal("Adapters second are merged; call Unmerge before activating others.", Assert.Throws<AdapterStateException>(() => peft.SetActive("second")).Message);
        Assert.Equal("Adapter 'second' is merged into the base; call Unmerge before deleting it.", Assert.Throws<AdapterStateException>(() => peft.DeleteAdapter("second")).Message);
        Assert.Equal("Adapter 'second' is merged with its present scale; call Unmerge before changing it.", Assert.Throws<AdapterStateException>(() => peft.SetScale("second", 2)).Message);
        Assert.Equal("Adapters are merged; call Unmerge before adding another one.", Assert.Throws<AdapterStateException>(() => peft.AddAdapter("third", Config)).Message);
        Assert.Equal("Adapters by sample cannot be used while adapters are merged; call Unmerge first.", Assert.Throws<AdapterStateException>(() => peft.WithAdaptersBySample(["second"])).Message);
        Assert.Equal("Adapters are merged; call Unmerge before combining.", Assert.Throws<AdapterStateException>(() => peft.AddWeightedAdapter(["second"], [1], "w")).Message);
        peft.Unmerge();
        Assert.Equal("An adapter can be merged only once: second, second.", Assert.Throws<AdapterStateException>(() => peft.Merge(["second", "second"])).Message);
        Assert.Equal("An adapter can be active only once: second, second.", Assert.Throws<AdapterStateException>(() => peft.SetActive("second", "second")).Message);
        peft.DeleteAdapter("default");
        Assert.Equal("Adapter 'second' is the only one; call Unload to get the base model back.", Assert.Throws<AdapterStateException>(() => peft.DeleteAdapter("second")).Message);
        peft.Dispose();
        net.Dispose();
    }

    [Fact]
    public void Deleting_an_adapter_puts_layers_back_that_no_other_one_uses()
    {
        var (net, peft) = Two();
        peft.DeleteAdapter("default");
        Assert.Equal(["second"], peft.ActiveAdapters);
        Assert.Equal(["first", "tail.up"], peft.Layers.Select(l => l.ModulePath));
        Assert.IsType<TorchSharp.Modules.Linear>(ModuleTree.Find(net, "blocks.0"));
        peft.Dispose();
        net.Dispose();
    }

    [Fact]
    public void Renaming_keeps_values_order_and_activity()
    {
        using var scope = NewDisposeScope();
        var (net, peft) = Two();
        var x = randn(2, 7);
        var before = net.call(x);
        peft.RenameAdapter("default", "card");
        Assert.Equal(["card", "second"], peft.AdapterNames);
        Assert.Equal(["card"], peft.ActiveAdapters);
        Assert.Contains("base_model.model.first.lora_A.card.weight", peft.TrainableParameters().Select(p => p.Name));
        TensorAssert.Equal(before, net.call(x), "output");
        peft.Dispose();
        net.Dispose();
    }

    [Fact]
    public void Only_the_active_adapters_are_trained()
    {
        var (net, peft) = Two();
        peft.SetActive("second");
        Assert.All(peft.TrainableParameters(), p => Assert.Contains(".second.", p.Name));
        peft.SetActive("default", "second");
        Assert.Equal(10, peft.TrainableParameters().Count());
        peft.Dispose();
        net.Dispose();
    }

    [Fact]
    public void The_report_counts_what_there_is()
    {
        var (net, peft) = Two();
        var report = peft.Report();
        Assert.Equal(24 + 20 + 24, report.Trainable);
        Assert.Equal(24 + 28, report.Adapters.Single(a => a.Name == "second").Frozen);
        Assert.Equal(net.parameters().Sum(p => p.numel()), report.Total);
        Assert.Equal(report.Total * 4, report.Bytes);
        Assert.StartsWith("trainable params: 68 || all params: ", report.ToString());
        Assert.Contains("adapter default (active): 68 trained, 0 frozen, 272 bytes", report.ToString());
        peft.Dispose();
        net.Dispose();
    }

    [Fact]
    public void Making_merging_saving_and_unloading_leave_no_tensor_behind()
    {
        using var net = new TinyNet();
        string folder = Directory.CreateTempSubdirectory("peft-leak-").FullName;
        foreach (var config in new[] { Config with { Bias = LoraBias.All, LoraBOwnBias = false }, Config with { UseDora = true }, Config with { Init = LoraInit.Pissa }, Config with { ModulesToSave = ["up"] } })
        {
            LeakGuard.AssertFlat(5, () =>
            {
                using (var peft = net.GetPeftModel(config))
                {
                    peft.Merge();
                    peft.Unmerge();
                    peft.Save(folder);
                }
                PeftModel.Load(net, folder).Dispose();
            });
        }
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Switching_the_active_adapter_takes_no_time_worth_mentioning()
    {
        var (net, peft) = Two();
        peft.SetActive("second");
        var watch = System.Diagnostics.Stopwatch.StartNew();
        for (int i = 0; i < 100; i++) peft.SetActive(i % 2 == 0 ? "default" : "second");
        Assert.True(watch.ElapsedMilliseconds < 1000, $"100 switches took {watch.ElapsedMilliseconds} ms.");
        peft.Dispose();
        net.Dispose();
    }
}
