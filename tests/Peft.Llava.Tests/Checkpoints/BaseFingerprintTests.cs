using Peft.Core;
using Peft.Llava;
using Peft.Quantization;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>A loaded base knows which weights it has; adapters remember it and are refused on another base.</summary>
public sealed class BaseFingerprintTests : IDisposable
{
    private static readonly string Base = Path.Combine(Repository.Root, "samples", "data", "base");
    private readonly string _folder = Directory.CreateTempSubdirectory("peft-base-").FullName;

    private string Adapter => Path.Combine(_folder, "adapter");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_same_checkpoint_has_one_fingerprint_however_it_is_loaded()
    {
        using var stored = LlavaModel.Load(Base);
        using var converted = LlavaModel.Load(Base, new LlavaLoadOptions { Dtype = ScalarType.BFloat16 });
        using var quantised = LlavaModel.Load(Base, new LlavaLoadOptions { Dtype = ScalarType.Float32, Quantization = QuantizationConfig.Nf4() });
        Assert.Matches("^[0-9a-f]{64}$", stored.BaseFingerprint);
        Assert.Equal(stored.BaseFingerprint, converted.BaseFingerprint);
        Assert.Equal(stored.BaseFingerprint, quantised.BaseFingerprint);
        using var random = TinyLlava.Create(3);
        Assert.Null(random.Model.BaseFingerprint);
    }

    [Fact]
    public void An_adapter_is_refused_on_a_base_with_other_weights_unless_that_is_allowed()
    {
        Save(Base, Adapter);
        string other = OtherBase("model.layers.0.mlp.up_proj.weight");
        using var model = LlavaModel.Load(other);
        using var own = LlavaModel.Load(Base);
        foreach (var load in new Func<PeftModel>[] { () => PeftModel.Load(model, Adapter), () => TrainedFolder.Load(model, Adapter) })
        {
            var e = Assert.Throws<WrongBaseException>(load);
            Assert.Equal((own.BaseFingerprint, model.BaseFingerprint), (e.Expected, e.Actual));
            Assert.Equal($"{Adapter}: the adapter was made on a base with fingerprint {e.Expected}, and this base has {e.Actual}; its output would be wrong. Load it onto its own base, or set "
                + "AdapterOptions.AllowOtherBase if you know better.", e.Message);
        }
        using (var allowed = TrainedFolder.Load(model, Adapter, options: new AdapterOptions { AllowOtherBase = true })) Assert.Single(allowed.AdapterNames);
        PeftModel.Load(own, Adapter).Dispose();
    }

    [Fact]
    public void Another_adapter_put_in_its_place_is_checked_too()
    {
        Save(Base, Adapter);
        string other = OtherBase("lm_head.weight"), second = Path.Combine(_folder, "second");
        Save(other, second);
        using var model = LlavaModel.Load(Base);
        using var peft = PeftModel.Load(model, Adapter);
        Assert.StartsWith($"{second}: the adapter was made on a base with fingerprint ", Assert.Throws<WrongBaseException>(() => peft.HotSwap(second, "default")).Message, StringComparison.Ordinal);
        peft.HotSwap(Adapter, "default");
    }

    [Fact]
    public void An_adapter_without_a_fingerprint_loads_on_any_base()
    {
        Save(Base, Adapter);
        File.Delete(Path.Combine(Adapter, AdapterLineage.FileName));   // as PEFT saves it
        using var model = LlavaModel.Load(OtherBase("model.norm.weight"));
        PeftModel.Load(model, Adapter).Dispose();
    }

    [Fact]
    public void A_merged_base_is_no_longer_what_it_was()
    {
        Save(Base, Adapter);
        using var model = LlavaModel.Load(Base, new LlavaLoadOptions { Dtype = ScalarType.Float32 });
        string made = model.BaseFingerprint!;
        using var next = PeftModel.TrainOn(model, Adapter, TrainOnMode.MergeThenNew, Config);
        Assert.Null(model.BaseFingerprint);
        Assert.Equal(new AdapterLineage(made, Adapter, TrainOnMode.MergeThenNew), next.LineageOf("default"));
    }

    private static LoraConfig Config => new() { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj", "down_proj"] };

    private static void Save(string folder, string adapter)
    {
        using var model = LlavaModel.Load(folder);
        using var peft = model.GetPeftModel(Config);
        peft.Save(adapter);
    }

    // The same base with one tensor's values shuffled a little.
    private string OtherBase(string changed)
    {
        string folder = Path.Combine(_folder, "base");
        foreach (string file in Directory.EnumerateFiles(Base, "*", SearchOption.AllDirectories))
        {
            string copy = Path.Combine(folder, Path.GetRelativePath(Base, file));
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            File.Copy(file, copy, overwrite: true);
        }
        using var scope = NewDisposeScope();
        using var reader = SafetensorsReader.Open(Path.Combine(Base, "model.safetensors"));
        var tensors = reader.Entries.Keys.ToDictionary(k => k, k => k == changed ? reader.Load(k) * 1.5 : reader.Load(k), StringComparer.Ordinal);
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), tensors, SafetensorsWriter.PyTorchMetadata);
        return folder;
    }
}
