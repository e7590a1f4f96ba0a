using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>An adapter takes another one's place: afterwards everything is as if it had been loaded there; what does not fit is refused before anything changes.</summary>
[Trait("Fault", "lora-3")]
public sealed class HotSwapTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 4, Alpha = 10, TargetModules = ["q_proj", "v_proj", "embed_tokens"] };
    private static readonly string Llama = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases", "llama");

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly TemporaryFolder _folder = new();
    private readonly ReferenceModel _model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
    private readonly ReferenceInputs _inputs = new(new Dictionary<string, Tensor> { ["input_ids"] = tensor(new long[] { 5, 9, 7, 12, 3, 5 }, [2, 3]) });

    public void Dispose()
    {
        _model.Dispose();
        _folder.Dispose();
        _scope.Dispose();
    }

    public static TheoryData<string> Kinds => ["smaller", "larger", "patterns", "fewer layers", "dora", "bias of B", "rows", "whole", "rank-stabilised", "dropout"];

    [Theory, MemberData(nameof(Kinds))]
    public void The_one_that_comes_in_acts_and_is_saved_as_if_it_had_been_loaded(string kind)
    {
        var rows = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [7, 5] };
        string[] linear = ["q_proj", "v_proj"];
        var (before, after) = kind switch
        {
            "smaller" => (Config, Config with { Rank = 2, Alpha = 3 }),
            "larger" => (Config, Config with { Rank = 7, Alpha = 3 }),
            "patterns" => (Config, Config with { RankPattern = Ordered(("layers.1.self_attn.q_proj", 3)), AlphaPattern = Ordered(("v_proj", 5.0)) }),
            "fewer layers" => (Config, Config with { TargetModules = ["v_proj"] }),
            "dora" => (Config with { UseDora = true }, Config with { UseDora = true, Rank = 3 }),
            "bias of B" => (Config with { TargetModules = linear, LoraBOwnBias = true }, Config with { TargetModules = linear, LoraBOwnBias = true, Rank = 6 }),
            "rows" => (Config with { TargetModules = linear, TrainableTokens = rows }, Config with { TargetModules = linear, TrainableTokens = rows, Rank = 5 }),
            "whole" => (Config with { ModulesToSave = ["lm_head"] }, Config with { ModulesToSave = ["lm_head"], Alpha = 3 }),
            "rank-stabilised" => (Config, Config with { UseRsLora = true }),
            _ => (Config with { Dropout = 0.3 }, Config with { Dropout = 0.1 }),
        };
        string incoming = Saved(after);
        Tensor wanted;
        using (PeftModel.Load(_model, incoming, "x")) wanted = Run();
        using var peft = _model.GetPeftModel(before, "x");
        peft.AddAdapter("y", Config with { TargetModules = linear });
        TinyNet.Randomise(peft);
        var factor = peft.LayerAt("model.layers.0.self_attn.v_proj")!.Adapters["x"].A;
        Assert.True((Run() - wanted).abs().max().ToDouble() > 1e-2);

        peft.HotSwap(incoming, "x");

        TensorAssert.Close(wanted, Run(), 1e-6, 1e-6, "output");
        Assert.Equal(["x", "y"], peft.AdapterNames);
        Assert.All(peft.Hosts.Where(h => h.AdapterNames.Contains("x")), h => Assert.Equal("x", h.AdapterNames.First()));
        var trained = peft.TrainableParameters().ToList();
        Assert.NotEmpty(trained);
        Assert.All(trained, t => Assert.Contains(".x", t.Name, StringComparison.Ordinal));
        // Where the rank stays, an optimizer's parameters stay.
        Assert.Equal(after.Rank == before.Rank, ReferenceEquals(factor, peft.LayerAt("model.layers.0.self_attn.v_proj")!.Adapters["x"].A));
        string saved = Path.Combine(_folder.Path, "saved");
        peft.Save(saved, ["x"]);
        using var again = SafetensorsReader.Open(Path.Combine(saved, "x", AdapterFolder.SafetensorsName));
        using var first = SafetensorsReader.Open(Path.Combine(incoming, AdapterFolder.SafetensorsName));
        Assert.Equal(first.Entries.Keys.Order(StringComparer.Ordinal), again.Entries.Keys.Order(StringComparer.Ordinal));
        foreach (string key in first.Entries.Keys) TensorAssert.Equal(first.Load(key), again.Load(key), key);
        peft.Merge(after.LoraBOwnBias ? ["y"] : ["x"]);
        peft.Dispose();
        using var reloaded = PeftModel.Load(_model, Path.Combine(saved, "x"), "x");
        TensorAssert.Close(wanted, Run(), 1e-6, 1e-6, "output of what was saved");
    }

    [Fact]
    public void Values_of_a_half_precision_adapter_stay_in_half_precision()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.BFloat16);
        string incoming = Saved(Config with { Rank = 2 });
        using var peft = model.GetPeftModel(Config, options: new AdapterOptions { UpcastToFloat32 = false });
        peft.HotSwap(incoming, "default");
        Assert.All(peft.Layers, l => Assert.Equal((ScalarType.BFloat16, 2L), (l.Adapters["default"].A.dtype, l.Adapters["default"].A.shape[0])));
    }

    public static TheoryData<string, string> Refused => new()
    {
        { "rows come in", "trainable_token_indices" }, { "rows go", "trainable_token_indices" }, { "other rows", "trainable_token_indices" }, { "rows in another order", "trainable_token_indices" },
        { "a whole module comes in", "modules_to_save" }, { "a whole module goes", "modules_to_save" }, { "dora", "use_dora" }, { "bias", "bias" }, { "bias of B", "lora_bias" },
        { "biases of fewer layers", "bias" }, { "init", "init_lora_weights, which changes the base" }, { "both", "use_dora, modules_to_save" },
    };

    [Theory, MemberData(nameof(Refused))]
    public void What_has_no_place_is_refused_before_anything_changes(string kind, string what)
    {
        var linear = Config with { TargetModules = ["q_proj", "v_proj"] };
        LoraConfig Rows(params long[] tokens) => linear with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = tokens } };
        var whole = linear with { ModulesToSave = ["lm_head"] };
        var (before, after) = kind switch
        {
            "rows come in" => (linear, Rows(7, 5)),
            "rows go" => (Rows(7, 5), linear),
            "other rows" => (Rows(7, 5), Rows(9, 12)),
            "rows in another order" => (Rows(7, 5), Rows(5, 7)),
            "a whole module comes in" => (linear, whole),
            "a whole module goes" => (whole, linear),
            "dora" => (linear with { UseDora = true }, linear),
            "bias" => (linear, linear with { Bias = LoraBias.All }),
            "bias of B" => (linear, linear with { LoraBOwnBias = true }),
            "biases of fewer layers" => (linear with { Bias = LoraBias.LoraOnly }, linear with { Bias = LoraBias.LoraOnly, TargetModules = ["v_proj"] }),
            "init" => (linear, linear with { Init = LoraInit.Pissa }),
            _ => (linear with { UseDora = true }, whole),
        };
        string incoming = Saved(after);
        using var peft = _model.GetPeftModel(before);
        TinyNet.Randomise(peft);
        var (wanted, config) = (Run(), peft.ConfigOf("default"));

        Assert.Equal($"The adapter in {incoming} differs from 'default' in {what}; load it under another name instead.",
            Assert.Throws<AdapterStateException>(() => peft.HotSwap(incoming, "default")).Message);

        TensorAssert.Equal(wanted, Run(), "unchanged");
        Assert.Same(config, peft.ConfigOf("default"));
    }

    [Fact]
    public void More_layers_and_a_damaged_file_are_refused_before_anything_changes()
    {
        string incoming = Saved(Config), damaged = Saved(Config with { TargetModules = ["v_proj"], Rank = 2 });
        using var peft = _model.GetPeftModel(Config with { TargetModules = ["v_proj"] });
        TinyNet.Randomise(peft);
        var wanted = Run();
        Assert.Equal($"The adapter in {incoming} has layers that 'default' has not, model.embed_tokens among them; load it under another name instead.",
            Assert.Throws<AdapterStateException>(() => peft.HotSwap(incoming, "default")).Message);
        string file = Path.Combine(damaged, AdapterFolder.SafetensorsName);
        Dictionary<string, Tensor> tensors;
        using (var reader = SafetensorsReader.Open(file)) tensors = reader.Entries.Keys.Skip(1).ToDictionary(k => k, reader.Load);
        SafetensorsWriter.Write(file, tensors);
        Assert.Contains("missing from file", Assert.Throws<AdapterTensorsException>(() => peft.HotSwap(damaged, "default")).Message, StringComparison.Ordinal);
        TensorAssert.Equal(wanted, Run(), "unchanged");
    }

    [Fact]
    public void The_lineage_comes_with_it()
    {
        string parent = Saved(Config);
        _model.Dispose();
        string child = Path.Combine(_folder.Path, "child");
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        using (var peft = PeftModel.TrainOn(model, parent, TrainOnMode.StackNew, Config with { Rank = 3 })) peft.Save(child, ["default"]);
        using var swapped = model.GetPeftModel(Config);
        swapped.HotSwap(child, "default");
        Assert.Equal((parent, TrainOnMode.StackNew), (swapped.LineageOf("default")!.Parent, swapped.LineageOf("default")!.Mode));
        Assert.Contains(swapped.Irregularities, i => i.StartsWith($"adapter 'default' goes on from the adapter in {parent}", StringComparison.Ordinal));
        swapped.HotSwap(parent, "default");
        Assert.Null(swapped.LineageOf("default"));
    }

    private static OrderedDictionary<string, T> Ordered<T>(params (string Key, T Value)[] pairs) => new(pairs.Select(p => KeyValuePair.Create(p.Key, p.Value)));

    private string Saved(LoraConfig config)
    {
        string folder = Path.Combine(_folder.Path, Guid.NewGuid().ToString("N"));
        using var peft = _model.GetPeftModel(config);
        TinyNet.Randomise(peft);
        peft.Save(folder);
        return folder;
    }

    private Tensor Run()
    {
        using var noGrad = no_grad();
        return _model.Run(_inputs);
    }
}
