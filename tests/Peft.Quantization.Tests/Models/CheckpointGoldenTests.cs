using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>Whole models: quantised while loading, and read from what bitsandbytes wrote.</summary>
[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class CheckpointGoldenTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("checkpoint-").FullName;

    public static IEnumerable<TheoryDataRow<string>> Checkpoints() => QuantGolden.Rows("checkpoint");

    [Theory, MemberData(nameof(Checkpoints))]
    public void Checkpoint_quantised_while_loading(string folder)
    {
        using var golden = new QuantGolden(folder);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var model = GoldenModel.Load(golden);
        var names = (IModuleNames)model;
        var linears = ModuleTree.Modules(model).Where(m => m.Module is FrozenLinear).ToList();
        Assert.Equal(GoldenModel.Names(golden.Case.Json.GetProperty("quantized_modules")),
            linears.Where(m => m.Module is FourBitLinear or Int8Linear).Select(m => names.ToExternal(m.Path)).Order(StringComparer.Ordinal));
        Assert.Equal(GoldenModel.Names(golden.Case.Json.GetProperty("linear_modules_left")),
            linears.Where(m => m.Module is DenseFrozenLinear).Select(m => names.ToExternal(m.Path)).Order(StringComparer.Ordinal));
        var left = golden.Case.Json.GetProperty("left_parameters").EnumerateObject().ToDictionary(p => p.Name, p => QuantGolden.Dtype(p.Value.GetString()!));
        var ours = model.named_parameters().ToDictionary(p => names.ToExternal(p.name), p => p.parameter.dtype);
        Assert.Equal(left.OrderBy(p => p.Key, StringComparer.Ordinal), ours.OrderBy(p => p.Key, StringComparer.Ordinal));

        using var batch = GoldenModel.Batch(model.Config, golden.Inputs);
        var logits = model.Forward(batch).Logits!;
        Check(golden, "logits", logits);

        using var read = LlavaModel.Load(golden.Case.PathOf("quantized"), new LlavaLoadOptions { Dtype = GoldenModel.LoadDtype(golden) });
        GoldenModel.UsePeersConstant(read);
        TensorAssert.Equal(logits, read.Forward(batch).Logits!, "logits of the checkpoint that bitsandbytes wrote");

        using var dense = LlavaModel.Load(golden.Case.PathOf(golden.String("base")), new LlavaLoadOptions { Dtype = GoldenModel.LoadDtype(golden) });
        Check(golden, "base_logits", dense.Forward(batch).Logits!);
    }

    [Theory, MemberData(nameof(Checkpoints))]
    public void Checkpoint_written_whole_holds_the_peers_bytes_and_is_read_again(string folder)
    {
        using var golden = new QuantGolden(folder);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var model = GoldenModel.Load(golden);
        var written = model.SavePretrained(_folder, new SavePretrainedOptions { KeyStyle = HuggingFaceKeyStyle.WrittenBy5, MaxShardBytes = 40_000 });
        Assert.Contains("model.safetensors.index.json", written);

        using var expected = TensorFiles.Open(golden.Case.PathOf("quantized"));
        using var ours = TensorFiles.Open(_folder);
        Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), ours.Entries.Keys.Order(StringComparer.Ordinal));
        foreach (string key in expected.Entries.Keys)
        {
            using var theirs = expected.Load(key);
            using var mine = ours.Load(key);
            golden.Check(key, theirs, mine, golden.Rule("quantized/*"));
        }

        using var again = LlavaModel.Load(_folder, new LlavaLoadOptions { Dtype = GoldenModel.LoadDtype(golden) });
        GoldenModel.UsePeersConstant(again);
        using var batch = GoldenModel.Batch(model.Config, golden.Inputs);
        TensorAssert.Equal(model.Forward(batch).Logits!, again.Forward(batch).Logits!, "logits of what was written");
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static void Check(QuantGolden golden, string name, Tensor packed)
    {
        var expected = GoldenModel.Packed(golden.Expected[name], golden.Inputs["attention_mask"]).to(ScalarType.Float32);
        golden.Check(name, expected, packed.to(ScalarType.Float32), golden.Rule(name));
    }
}
