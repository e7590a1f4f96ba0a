using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class AdapterFolderTests : IDisposable
{
    private const string Key = "base_model.model.first.lora_A.weight";

    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["first", "blocks.0"], TaskType = "CAUSAL_LM" };

    private readonly string _folder = Directory.CreateTempSubdirectory("peft-folder-").FullName;
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly TinyNet _net = new();

    private string Tensors => Path.Combine(_folder, AdapterFolder.SafetensorsName);

    public void Dispose()
    {
        _net.Dispose();
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory]
    [InlineData(AdapterFileFormat.Safetensors, true)]
    [InlineData(AdapterFileFormat.Safetensors, false)]
    [InlineData(AdapterFileFormat.Bin, true)]
    public void What_is_saved_is_loaded_back(AdapterFileFormat format, bool dora)
    {
        var x = randn(3, 7);
        Tensor wanted;
        using (var peft = Saved(Config with { UseDora = dora, LoraBOwnBias = !dora }, format)) wanted = _net.call(x);
        using var loaded = PeftModel.Load(_net, _folder, "other");
        TensorAssert.Close(wanted, _net.call(x), 1e-6, 0, "output");
        Assert.Empty(loaded.TrainableParameters());
        Assert.Equal(["other"], loaded.ActiveAdapters);
        Assert.Equal(format == AdapterFileFormat.Safetensors, File.Exists(Tensors));
        Assert.Contains("\"inference_mode\": true", File.ReadAllText(Path.Combine(_folder, "adapter_config.json")));
    }

    [Fact]
    public void Trained_biases_are_saved_loaded_and_put_back_on_unloading()
    {
        var x = randn(3, 7);
        var before = _net.call(x);
        Tensor wanted;
        using (var peft = Saved(Config with { Bias = LoraBias.LoraOnly }, change: p => p.add_(0.2))) wanted = _net.call(x);
        TensorAssert.Equal(before, _net.call(x), "base output");
        using (PeftModel.Load(_net, _folder, options: new AdapterOptions { Trainable = true })) TensorAssert.Close(wanted, _net.call(x), 1e-6, 0, "output");
        TensorAssert.Equal(before, _net.call(x), "base output after unloading");
    }

    [Fact]
    public void Folders_that_are_no_adapter_are_said()
    {
        string missing = Path.Combine(_folder, "nope");
        Assert.Equal($"{missing}: there is no such folder. Adapters are read from local folders; download it first.", Fault(missing));
        Assert.Equal($"{_folder}: there is no adapter_config.json. Is this an adapter folder?", Fault(_folder));
        File.WriteAllText(Path.Combine(_folder, "adapter_config.json"), "{\"peft_type\": \"LORA\", \"r\": 2}");
        Assert.Equal($"{_folder}: there is neither adapter_model.safetensors nor adapter_model.bin. Was it copied in full?", Fault(_folder));
        File.WriteAllText(Tensors, "");
        File.WriteAllText(Path.Combine(_folder, AdapterFolder.BinName), "");
        Assert.Equal($"{_folder}: holds both adapter_model.safetensors and adapter_model.bin, which may differ. Remove the one that is not wanted.", Fault(_folder));
        string parent = Directory.CreateDirectory(Path.Combine(_folder, "several")).FullName;
        Directory.CreateDirectory(Path.Combine(parent, "card"));
        File.WriteAllText(Path.Combine(parent, "card", "adapter_config.json"), "{}");
        Assert.Equal($"{parent}: there is no adapter_config.json. The adapters are in its folders card; open one of these.", Fault(parent));

        string Fault(string folder) => Assert.Throws<AdapterFolderException>(() => PeftModel.Load(_net, folder)).Message;
    }

    /// <summary>PEFT loads modules that were trained beside the adapter as its modules_to_save, from the same file.</summary>
    [Fact, Trait("Fault", "files-9")]
    public void Modules_trained_beside_the_adapter_are_saved_as_its_own()
    {
        var x = randn(3, 7);
        Tensor wanted;
        using (var peft = _net.GetPeftModel(Config with { ModulesToSave = ["blocks.1"] }))
        {
            TinyNet.Randomise(peft);
            using (no_grad())
            {
                foreach (var (name, parameter) in peft.NamedParameters().Where(p => p.Name.Contains(".tail.down.", StringComparison.Ordinal))) parameter.add_(randn_like(parameter), alpha: 0.1);
            }
            wanted = _net.call(x);
            Assert.Equal("There is no module 'up.down' to save with the adapters; give the end of its path in the model.",
                Assert.Throws<AdapterStateException>(() => peft.Save(_folder, trainedModules: ["down", "up.down"])).Message);
            Assert.Empty(Directory.GetFileSystemEntries(_folder));
            peft.Save(_folder, trainedModules: ["tail.down", "blocks.1"]);
        }
        using (var files = AdapterFolder.Open(_folder))
        {
            Assert.Equal(["blocks.1", "tail.down"], files.Config.ModulesToSave!);
            Assert.Contains("base_model.model.tail.down.bias", files.Tensors.Entries.Keys);
        }
        using var fresh = new TinyNet();
        using (no_grad())
        {
            foreach (var (parameter, own) in fresh.parameters().Zip(_net.parameters())) parameter.copy_(own);
            foreach (var parameter in fresh.named_parameters().Where(p => p.name.StartsWith("tail.down.", StringComparison.Ordinal))) parameter.parameter.zero_();
        }
        using var loaded = PeftModel.Load(fresh, _folder);
        TensorAssert.Close(wanted, fresh.call(x), 1e-6, 0, "output");
    }

    [Fact]
    public void A_folder_that_cannot_be_made_is_said()
    {
        string file = Path.Combine(_folder, "a-file");
        File.WriteAllText(file, "x");
        using var peft = _net.GetPeftModel(Config);
        string folder = Path.Combine(file, "adapter");
        Assert.StartsWith($"{folder} could not be written: ", Assert.Throws<FileWriteException>(() => peft.Save(folder)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("missing", "base_model.model.first.lora_A.weight: missing from file")]
    [InlineData("unexpected", "base_model.model.last.lora_A.weight: the model has no place for it; the nearest is base_model.model.first.lora_A.weight")]
    [InlineData("named", "base_model.model.first.lora_A.default.weight: the model has no place for it; the nearest is base_model.model.first.lora_A.weight")]
    [InlineData("shape", "base_model.model.first.lora_A.weight: file has (3, 7), model wants (2, 7)")]
    [InlineData("integers", "base_model.model.first.lora_A.weight: file has I64, which is no floating-point dtype")]
    [InlineData("no prefix", "first.lora_A.weight: the model has no place for it; the nearest is base_model.model.first.lora_A.weight")]
    public void A_file_that_does_not_fit_is_told_tensor_by_tensor(string fault, string line)
    {
        Saved(Config).Dispose();
        var tensors = Read();
        var a = tensors[Key];
        switch (fault)
        {
            case "missing": tensors.Remove(Key); break;
            case "unexpected": tensors["base_model.model.last.lora_A.weight"] = a; break;
            case "named": tensors.Remove(Key); tensors["base_model.model.first.lora_A.default.weight"] = a; break;
            case "shape": tensors[Key] = randn(3, 7); break;
            case "integers": tensors[Key] = zeros(2, 7, ScalarType.Int64); break;
            default: tensors = tensors.ToDictionary(t => t.Key["base_model.model.".Length..], t => t.Value); break;
        }
        SafetensorsWriter.Write(Tensors, tensors, SafetensorsWriter.PyTorchMetadata);
        var before = _net.parameters().Select(p => p.clone()).ToList();
        var e = Assert.Throws<AdapterTensorsException>(() => PeftModel.Load(_net, _folder));
        Assert.Contains(line, e.Faults);
        Assert.StartsWith($"{Tensors}: {e.Faults.Count} tensor(s) do not fit; nothing was loaded.\n  ", e.Message);
        Assert.EndsWith("\nIs this the adapter's base model, and are r and target_modules in adapter_config.json those of the file?", e.Message);
        Assert.DoesNotContain(ModuleTree.Modules(_net), m => m.Module is IAdapterHost);
        Assert.All(_net.parameters(), p => Assert.True(p.requires_grad));
        foreach (var (was, now) in before.Zip(_net.parameters())) TensorAssert.Equal(was, now, "parameter");
    }

    [Fact]
    public void NaN_in_a_file_is_an_error()
    {
        Saved(Config).Dispose();
        var tensors = Read();
        tensors[Key][1, 2] = float.NaN;
        SafetensorsWriter.Write(Tensors, tensors, SafetensorsWriter.PyTorchMetadata);
        Assert.Equal($"{Tensors}: 1 tensor(s) hold NaN or infinity: {Key}. The adapter is broken; use an earlier checkpoint.",
            Assert.Throws<NonFiniteWeightsException>(() => PeftModel.Load(_net, _folder)).Message);
    }

    [Fact]
    public void A_config_of_another_rank_than_the_file_is_an_error()
    {
        Saved(Config).Dispose();
        string file = Path.Combine(_folder, "adapter_config.json");
        File.WriteAllText(file, File.ReadAllText(file).Replace("\"r\": 2", "\"r\": 3", StringComparison.Ordinal));
        var e = Assert.Throws<AdapterTensorsException>(() => PeftModel.Load(_net, _folder));
        Assert.Equal(4, e.Faults.Count);
        Assert.Equal($"{Tensors}: 4 tensor(s) do not fit; nothing was loaded.\n  base_model.model.blocks.0.lora_A.weight: file has (2, 5), model wants (3, 5)\n"
            + "  base_model.model.blocks.0.lora_B.weight: file has (5, 2), model wants (5, 3)\n  base_model.model.first.lora_A.weight: file has (2, 7), model wants (3, 7)\n"
            + "  base_model.model.first.lora_B.weight: file has (5, 2), model wants (5, 3)\nIs this the adapter's base model, and are r and target_modules in adapter_config.json those of the file?", e.Message);
    }

    [Fact]
    public void Loading_under_a_name_that_exists_is_an_error()
    {
        using var peft = Saved(Config);
        Assert.StartsWith("An adapter cannot be called 'default': the model has an adapter of that name", Assert.Throws<AdapterNameException>(() => peft.LoadAdapter(_folder, "default")).Message);
    }

    [Fact]
    public void Entries_that_match_nothing_are_noted_when_a_file_is_loaded()
    {
        Saved(Config).Dispose();
        string file = Path.Combine(_folder, "adapter_config.json");
        File.WriteAllText(file, File.ReadAllText(file).Replace("\"blocks.0\"", "\"blocks.0\", \"query_key_value\"", StringComparison.Ordinal));
        using var peft = PeftModel.Load(_net, _folder);
        Assert.Equal(["adapter 'default': target_modules 'query_key_value' matches nothing"], peft.Irregularities);
        Assert.EndsWith("\nnote: adapter 'default': target_modules 'query_key_value' matches nothing", peft.Report().ToString());
    }

    [Fact]
    public void A_pattern_that_reads_otherwise_once_it_is_sorted_is_not_saved()
    {
        using var peft = _net.GetPeftModel(Config with { RankPattern = new OrderedDictionary<string, int> { ["first"] = 2, [".*first"] = 3 } });
        Assert.Equal("rank_pattern: several keys match first, and in adapter_config.json, whose keys are sorted, another one comes first; the saved adapter could not be "
            + "loaded. Make the keys exclude each other.", Assert.Throws<PatternOrderException>(() => peft.Save(_folder)).Message);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder));
        peft.Dispose();
        using var other = _net.GetPeftModel(Config with { AlphaPattern = new OrderedDictionary<string, double> { ["first"] = 2, [".*first"] = 3 } });
        Assert.StartsWith("alpha_pattern: several keys", Assert.Throws<PatternOrderException>(() => other.Save(_folder)).Message);
    }

    [Fact]
    public void All_linear_is_saved_as_the_names_it_meant()
    {
        using var _ = Saved(Config with { TargetModules = TargetModules.AllLinear, ExcludeModules = ["narrow"] });
        Assert.Equal(["blocks.0", "blocks.1", "first", "tail.down", "tail.up"], AdapterConfigJson.Read(Path.Combine(_folder, "adapter_config.json")).TargetModules!);
    }

    [Fact]
    public void A_swap_that_is_more_than_values_is_refused()
    {
        using var peft = Saved(Config);
        var x = randn(2, 7);
        peft.HotSwap(_folder, "default");
        peft.Merge();
        Assert.Equal("Adapter 'default' is merged; call Unmerge before swapping its weights.", Assert.Throws<AdapterStateException>(() => peft.HotSwap(_folder, "default")).Message);
        peft.Dispose();
        using var other = _net.GetPeftModel(Config with { TargetModules = ["first"] });
        Assert.Matches($"^The adapter in .*{Path.GetFileName(_folder)} has layers that 'default' has not, .* among them; load it under another name instead.$",
            Assert.Throws<AdapterStateException>(() => other.HotSwap(_folder, "default")).Message);
        other.Dispose();
        using var dora = _net.GetPeftModel(Config with { UseDora = true });
        Assert.Equal($"The adapter in {_folder} differs from 'default' in use_dora; load it under another name instead.",
            Assert.Throws<AdapterStateException>(() => dora.HotSwap(_folder, "default")).Message);
    }

    private PeftModel Saved(LoraConfig config, AdapterFileFormat format = AdapterFileFormat.Safetensors, Action<Tensor>? change = null)
    {
        manual_seed(4);
        var peft = _net.GetPeftModel(config);
        TinyNet.Randomise(peft);
        using (no_grad())
            foreach (var (_, parameter) in peft.TrainableParameters()) change?.Invoke(parameter);
        peft.Save(_folder, format: format);
        return peft;
    }

    private Dictionary<string, Tensor> Read()
    {
        using var reader = SafetensorsReader.Open(Tensors);
        return reader.Entries.Keys.ToDictionary(k => k, reader.Load);
    }
}
