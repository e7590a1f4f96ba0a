using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Modules trained in full, rows of tokens, replicated layers.</summary>
public sealed class HostTests
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["first"] };

    private static readonly string Llama = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases", "llama");

    private static readonly string Tied = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases", "llama-tied");

    [Fact]
    public void A_module_trained_in_full_is_a_copy_of_whatever_class_it_is()
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        using var outer = new TwoParts(net);
        var x = randn(2, 7);
        var before = outer.Run(x);
        using var peft = outer.GetPeftModel(Config with { TargetModules = ["head"], ModulesToSave = ["body"] });
        var copied = peft.TrainableParameters().Where(p => p.Name.StartsWith("base_model.model.body.modules_to_save.default.", StringComparison.Ordinal)).ToList();
        Assert.Equal(net.parameters().Count(), copied.Count);
        using (no_grad())
            foreach (var (_, parameter) in copied) parameter.add_(randn_like(parameter));
        Assert.True((outer.Run(x) - before).abs().max().ToDouble() > 1e-3);
        using (peft.WithoutAdapter()) TensorAssert.Equal(before, outer.Run(x), "the original's output");
    }

    [Fact]
    public void Two_copies_of_one_module_cannot_both_be_active()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], ModulesToSave = ["lm_head"] };
        using var peft = model.GetPeftModel(config);
        peft.AddAdapter("b", config);
        Assert.Equal("Adapters default and b both train lm_head in full and cannot be active together.", Assert.Throws<AdapterStateException>(() => peft.SetActive("default", "b")).Message);
        Assert.Equal("lm_head: adapter 'default' is there as ModuleToSave, which does not go with LoRA; delete it first.",
            Assert.Throws<UnsupportedTargetException>(() => peft.AddAdapter("c", config with { TargetModules = ["lm_head"], ModulesToSave = null })).Message);
        Assert.Equal(["default", "b"], peft.AdapterNames);
    }

    [Fact]
    public void Whole_modules_and_rows_of_tokens_are_mixed_by_sample_too()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] };
        using var peft = model.GetPeftModel(config with { ModulesToSave = ["lm_head"] }, "whole");
        peft.AddAdapter("rows", config with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [7, 5] } });
        peft.AddAdapter("other", config with { ModulesToSave = ["lm_head"], TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = [9, 12, 5] } });
        TinyNet.Randomise(peft);
        string[] names = ["whole", "__base__", "other", "rows", "rows"];
        var ids = tensor(new long[] { 5, 9, 7, 5, 9, 7, 5, 9, 12, 12, 5, 5, 3, 7, 9 }, [5, 3]);
        var alone = names.Select((name, i) =>
        {
            using var one = name == "__base__" ? peft.WithoutAdapter() : peft.WithAdapters(name);
            return model.Run(Ids(ids.narrow(0, i, 1)));
        }).ToList();
        Assert.True((alone[0] - alone[1]).abs().max().ToDouble() > 1e-2);
        peft.SetActive("other");                      // what is active otherwise does not shine through
        using (peft.WithAdaptersBySample(names)) TensorAssert.Close(cat(alone, 0), model.Run(Ids(ids)), 1e-5, 1e-5, "logits");
        using (peft.WithAdaptersBySample(["whole"])) TensorAssert.Close(alone[0], model.Run(Ids(ids.narrow(0, 0, 1))), 1e-5, 1e-5, "logits of one");
    }

    [Fact]
    public void A_module_that_is_no_map_of_one_tensor_cannot_be_wrapped()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        Assert.Equal("model.layers.0.self_attn: ReferenceLlamaAttention is no Module<Tensor, Tensor> and cannot be wrapped for modules_to_save; name a module inside it.",
            Assert.Throws<UnsupportedTargetException>(() => model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["down_proj"], ModulesToSave = ["layers.0.self_attn"] })).Message);
    }

    [Fact]
    public void A_quantised_part_cannot_be_trained_in_full()
    {
        using var two = new TwoParts(new Bytes());
        var e = Assert.Throws<UnsupportedTargetException>(() => two.GetPeftModel(Config with { TargetModules = ["head"], ModulesToSave = ["body"] }));
        Assert.Equal("body: a parameter of Bytes is stored as Byte and cannot be trained in full; load this part unquantised.", e.Message);
    }

    [Fact]
    public void Parameters_where_no_copy_can_reach_them_are_said()
    {
        using var two = new TwoParts(new Elsewhere());
        var e = Assert.Throws<UnsupportedTargetException>(() => two.GetPeftModel(Config with { TargetModules = ["head"], ModulesToSave = ["body"] }));
        Assert.DoesNotContain(ModuleTree.Modules(two), m => m.Module is IAdapterHost);
        Assert.Equal("body: Elsewhere keeps parameters or modules where they cannot be copied; keep them in fields or lists.", e.Message);
    }

    [Theory]
    [InlineData(new long[] { 5, 131 }, "trainable_token_indices names token 131, but model.embed_tokens has 131 rows")]
    [InlineData(new long[] { 5, 5 }, "trainable_token_indices of model.embed_tokens must be different token ids from 0 on, at least one")]
    [InlineData(new long[] { -1 }, "trainable_token_indices of model.embed_tokens must be different token ids from 0 on, at least one")]
    [InlineData(new long[0], "trainable_token_indices of model.embed_tokens must be different token ids from 0 on, at least one")]
    public void Token_ids_are_checked(long[] indices, string problem)
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { ["embed_tokens"] = indices } };
        Assert.Equal($"LoraConfig: {problem}.", Assert.Throws<InvalidLoraConfigException>(() => model.GetPeftModel(config)).Message);
        Assert.DoesNotContain(ModuleTree.Modules(model), m => m.Module is IAdapterHost);
    }

    [Fact]
    public void LoRA_and_trained_rows_on_one_embedding_exclude_each_other()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["embed_tokens"], TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { [""] = [3] } };
        Assert.Equal("model.embed_tokens: it cannot have LoRA and trained rows in one adapter; choose one of target_modules and trainable_token_indices.",
            Assert.Throws<UnsupportedTargetException>(() => model.GetPeftModel(config)).Message);
    }

    [Fact]
    public void Merged_rows_are_taken_out_bit_for_bit()
    {
        using var scope = NewDisposeScope();
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { [""] = [3, 8] } };
        using var peft = model.GetPeftModel(config);
        TinyNet.Randomise(peft);
        var embedding = (IAdapterHost)ModuleTree.Find(model, "model.embed_tokens")!;
        var before = embedding.BaseParameters().Single().Parameter.clone();
        var ids = tensor(new long[] { 3, 4, 8 }).unsqueeze(0);
        var unmerged = ((nn.Module<Tensor, Tensor>)embedding).call(ids);
        peft.Merge();
        TensorAssert.Equal(unmerged, ((nn.Module<Tensor, Tensor>)embedding).call(ids), "merged rows");
        peft.Unmerge();
        TensorAssert.Equal(before, embedding.BaseParameters().Single().Parameter, "table");
        peft.RenameAdapter("default", "rows");
        Assert.Contains("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.rows", peft.TrainableParameters().Select(p => p.Name));
    }

    [Fact]
    public void Kept_ties_adapt_both_layers_with_the_same_numbers()
    {
        using var model = ReferenceModel.Load(Tied, "llama", ScalarType.Float32);
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["embed_tokens"], EnsureWeightTying = true };
        Assert.Equal("LoraConfig: ensure_weight_tying does not work with use_dora or lora_bias.", Assert.Throws<InvalidLoraConfigException>(() => model.GetPeftModel(config with { UseDora = true })).Message);
        using var peft = model.GetPeftModel(config);
        Assert.Equal(["model.embed_tokens", "lm_head"], peft.Layers.Select(l => l.ModulePath));
        using var noGrad = no_grad();
        peft.LayerAt("model.embed_tokens")!.Adapters["default"].B.fill_(0.25);
        TensorAssert.Equal(full([2, 48], 0.25f), peft.LayerAt("lm_head")!.Adapters["default"].A, "A of the head");
    }

    [Fact]
    public void Replicated_layers_cannot_be_merged_and_come_back()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        var before = ModuleTree.Modules(model).ToList();
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], LayerReplication = [(0, 2), (0, 1)] };
        Assert.Equal("LoraConfig: layer_replication has the range [0, 3), but there are 2 layers.",
            Assert.Throws<InvalidLoraConfigException>(() => model.GetPeftModel(config with { LayerReplication = [(0, 3)] })).Message);
        using (var peft = model.GetPeftModel(config))
        {
            Assert.Equal(3, peft.Layers.Count());
            Assert.Equal("The layers were replicated (layer_replication) and share weights, so that a merge would change all copies at once; use the adapter unmerged.",
                Assert.Throws<AdapterStateException>(() => peft.MergeAndUnload()).Message);
            Assert.Equal("LoraConfig: layer_replication rebuilds the model and can be asked for by the first adapter only.",
                Assert.Throws<InvalidLoraConfigException>(() => peft.AddAdapter("b", config)).Message);
        }
        Assert.Equal(before, ModuleTree.Modules(model));
        using var net = new TinyNet();
        Assert.Equal("LoraConfig: layer_replication found no list of layers (layers, h or encoder.layer) in the model.",
            Assert.Throws<InvalidLoraConfigException>(() => net.GetPeftModel(Config with { LayerReplication = [(0, 1)] })).Message);
    }

    [Fact]
    public void Inits_that_look_at_a_matrix_work_on_linear_layers_only()
    {
        using var model = ReferenceModel.Load(Llama, "llama", ScalarType.Float32);
        using var one = new OneLayer(nn.Conv2d(3, 4, 3));
        Assert.Equal("lin: init_lora_weights 'olora' works on linear layers only.",
            Assert.Throws<UnsupportedTargetException>(() => one.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, Init = LoraInit.Olora, TargetModules = ["lin"] })).Message);
        Assert.Equal("init_lora_weights 'loftq' needs a quantiser; set AdapterOptions.Loftq.",
            Assert.Throws<AdapterStateException>(() => model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, Init = LoraInit.Loftq, TargetModules = ["q_proj"] })).Message);
    }

    [Fact]
    public void A_convolution_with_other_padding_is_refused()
    {
        using var one = new OneLayer(nn.Conv2d(3, 4, 3, padding: 1, padding_mode: PaddingModes.Reflect));
        Assert.Equal("lin: LoRA works on convolutions with a number as zero padding only; pad before the layer.",
            Assert.Throws<UnsupportedTargetException>(() => one.GetPeftModel(Config with { TargetModules = ["lin"] })).Message);
    }

    private static ReferenceInputs Ids(Tensor ids) => new(new Dictionary<string, Tensor> { ["input_ids"] = ids });

    private sealed class TwoParts : nn.Module
    {
        private readonly nn.Module<Tensor, Tensor> body;
        private readonly nn.Module<Tensor, Tensor> head;

        public TwoParts(nn.Module<Tensor, Tensor> body)
            : base(nameof(TwoParts))
        {
            this.body = body;
            head = nn.Linear(3, 3);
            RegisterComponents();
        }

        public Tensor Run(Tensor x) => head.call(body.call(x));
    }

    private sealed class Bytes : nn.Module<Tensor, Tensor>
    {
        private readonly Parameter packed = new(zeros(3, ScalarType.Byte), requires_grad: false);

        public Bytes()
            : base(nameof(Bytes)) => RegisterComponents();

        public override Tensor forward(Tensor x) => x + packed;
    }

    private sealed class Elsewhere : nn.Module<Tensor, Tensor>
    {
        public Elsewhere()
            : base(nameof(Elsewhere))
        {
            RegisterComponents();
            register_parameter("weight", new Parameter(zeros(3)));
        }

        public override Tensor forward(Tensor x) => x + get_parameter("weight")!;
    }
}
