using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>What PEFT refuses and what it accepts, and the order of its casts.</summary>
public sealed class AdapterRulesTests : IDisposable
{
    private static readonly string Llama = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases", "llama");

    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["lin"] };

    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact, Trait("Fault", "lora-8")]
    public void An_embedding_has_no_lora_bias()
    {
        using var one = new OneLayer(nn.Embedding(7, 5));
        Assert.Equal("lin: an embedding cannot have lora_bias, which would never be trained; set it to false, or leave the embedding out (exclude_modules).",
            Assert.Throws<UnsupportedTargetException>(() => one.GetPeftModel(Config with { LoraBOwnBias = true })).Message);
        Assert.DoesNotContain(ModuleTree.Modules(one), m => m.Module is IAdapterHost);
    }

    public static TheoryData<LoraInit> Decompositions() => new() { LoraInit.Pissa, LoraInit.PissaFast(2), LoraInit.Olora, LoraInit.Orthogonal };

    [Theory, MemberData(nameof(Decompositions)), Trait("Fault", "lora-16")]
    public void A_decomposition_has_no_more_parts_than_the_smaller_side(LoraInit init)
    {
        using var one = new OneLayer(nn.Linear(9, 5));
        var before = ((Linear)ModuleTree.Find(one, "lin")!).weight.detach().clone();
        Assert.Equal($"LoraConfig: init_lora_weights '{init}' takes at most the smaller side's 5 parts from lin (9 -> 5), and r is 6; lower it (rank_pattern), or start with true.",
            Assert.Throws<InvalidLoraConfigException>(() => one.GetPeftModel(Config with { Rank = 6, Init = init })).Message);
        TensorAssert.Equal(before, ((Linear)ModuleTree.Find(one, "lin")!).weight, "base");
        using var plain = one.GetPeftModel(Config with { Rank = 6 });
        Assert.Single(plain.Irregularities);
    }

    [Theory, MemberData(nameof(Decompositions)), Trait("Fault", "lora-16")]
    public void An_embedding_beside_a_decomposition_starts_plain(LoraInit init)
    {
        using var folder = new TemporaryFolder();
        using var noGrad = no_grad();
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var ids = new ReferenceInputs(new Dictionary<string, Tensor> { ["input_ids"] = tensor(new long[] { 5, 9, 7, 3, 12 }, [1, 5]) });
        var before = model.Run(ids);
        using (var peft = model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, Init = init, TargetModules = ["q_proj", "embed_tokens"] }))
        {
            var embedding = peft.LayerAt("model.embed_tokens")!.Adapters["default"];
            Assert.Equal(0, embedding.A.abs().max().ToDouble());
            Assert.True(embedding.B.abs().max().ToDouble() > 0);
            TensorAssert.Close(before, model.Run(ids), 1e-4, 1e-4, "at the start");
            foreach (var tensor in peft.Hosts.SelectMany(h => h.TensorsOf("default"))) tensor.Tensor.add_(randn_like(tensor.Tensor) * 0.1);
            var trained = model.Run(ids);
            if (init.ChangesBase) peft.SaveAsPlain(folder.Path);
            else peft.Save(folder.Path);
            peft.Unload();
            using var again = PeftModel.Load(model, folder.Path);
            TensorAssert.Close(trained, model.Run(ids), 1e-4, 1e-4, "loaded");
        }
        TensorAssert.Equal(before, model.Run(ids), "unloaded");
    }

    [Fact, Trait("Fault", "lora-16")]
    public void Rows_that_two_adapters_train_cannot_act_together()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        LoraConfig Rows(params long[] tokens) => new() { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = tokens } };
        using var peft = model.GetPeftModel(Rows(7, 5), "a");
        peft.AddAdapter("b", Rows(3, 5));
        peft.AddAdapter("c", Rows(8));
        const string message = "Adapters a and b both train row 5 of model.embed_tokens and cannot be active together.";
        Assert.Equal(message, Assert.Throws<AdapterStateException>(() => peft.SetActive("a", "b")).Message);
        Assert.Equal(message, Assert.Throws<AdapterStateException>(() => peft.WithAdapters("a", "b")).Message);
        Assert.Equal(message, Assert.Throws<AdapterStateException>(() => peft.Merge(["a", "b"])).Message);
        peft.Merge(["a", "c"]);
        Assert.Equal(message, Assert.Throws<AdapterStateException>(() => peft.Merge(["b"])).Message);
        Assert.Equal(["a", "c"], peft.MergedAdapters);
    }

    [Theory, Trait("Fault", "lora-16")]
    [InlineData("[]")]
    [InlineData("\"\"")]
    [InlineData("null")]
    public void An_empty_layers_pattern_means_any_list_of_layers(string pattern)
    {
        var config = AdapterConfigJson.Parse($$"""{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": {{pattern}}}""");
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        Assert.Equal(["model.layers.1.self_attn.q_proj"], PeftModel.Preview(model, config).Targets.Select(t => t.Path));
        // And alone it is no fault.
        Assert.Empty(AdapterConfigJson.Parse($$"""{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "layers_pattern": {{pattern}}}""").Problems());
    }

    [Fact, Trait("Fault", "lora-16")]
    public void An_adapter_that_EVA_began_is_a_plain_one_and_its_file_keeps_the_word()
    {
        const string json = """{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "init_lora_weights": "eva", "eva_config": {"rho": 2.0, "tau": 0.99}}""";
        var config = AdapterConfigJson.Parse(json);
        Assert.Empty(config.Problems());
        Assert.Equal(LoraInit.Default, config.Init);
        string written = AdapterConfigJson.Write(config);
        Assert.Contains("\"init_lora_weights\": \"eva\"", written, StringComparison.Ordinal);
        Assert.Contains("\"rho\": 2.0", written, StringComparison.Ordinal);
        Assert.Contains("\"init_lora_weights\": false", AdapterConfigJson.Write(config with { Init = LoraInit.Random }), StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "lora-17")]
    public void The_input_is_cast_before_it_is_dropped()
    {
        // PEFT's roundings, of the base's product too; the packed product rounds the sum alone.
        using var engine = ProductChoice.Force(ProductEngine.Libtorch);
        using var one = new OneLayer(new DenseFrozenLinear(randn(5, 9).to(ScalarType.BFloat16).DetachFromDisposeScope()));
        using var peft = one.GetPeftModel(Config with { Dropout = 0.3 });
        TinyNet.Randomise(peft);
        peft.Dropout = new Fixed(rand(6, 9).gt(0.3));
        var adapter = peft.Layers.Single().Adapters["default"];
        var x = randn(6, 9).to(ScalarType.BFloat16).requires_grad_(true);
        // PEFT: result (bf16, promoted) + lora_B(lora_A(dropout(x.to(float32)))) * scaling, rounded once.
        var wide = x.detach().to(ScalarType.Float32);
        var dropped = wide * ((Fixed)peft.Dropout).Mask / 0.7;
        var wanted = (nn.functional.linear(x.detach(), ((LoraLinear)peft.Layers.Single()).BaseLayer.MaterializeWeight(ScalarType.BFloat16))
            + dropped.matmul(adapter.A.t()).matmul(adapter.B.t()) * 1.5).to(ScalarType.BFloat16);
        var got = peft.Layers.Single().call(x);
        TensorAssert.Close(wanted, got, 0, 0.004, "output");
        got.backward([ones_like(got)]);
        var gradient = (ones(6, 5).matmul(adapter.B.detach()) * 1.5).t().matmul(dropped);
        TensorAssert.Close(gradient, adapter.A.grad!, 1e-4, 1e-5, "gradient of A");
    }

    private sealed class Fixed(Tensor mask) : IDropoutSource, IDropoutMask
    {
        public Tensor Mask { get; } = mask;

        public IDropoutMask Draw(string module, Tensor input, double probability) => this;

        public Tensor Apply(Tensor input) => (input * Mask.to(input.dtype)).div_(0.7);
    }
}
