using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Adapters on an embedding whose weight is the output head's as well, by PEFT's rules. The oracle is the same model with the weight itself changed.</summary>
public sealed class EmbeddingTieTests : IDisposable
{
    private const string Embedding = "model.embed_tokens", Head = "lm_head";

    private static readonly string Bases = Path.Combine(Repository.Root, "tests", "goldens", "peft", "_bases");
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] };
    private static readonly long[] Rows = [9, 3, 12];

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _folder = Directory.CreateTempSubdirectory("peft-tie-").FullName;
    private readonly ReferenceModel _model = ReferenceModel.Load(Path.Combine(Bases, "llama-tied"), "llama", ScalarType.Float32);
    private readonly ReferenceModel _oracle = ReferenceModel.Load(Path.Combine(Bases, "llama-tied"), "llama", ScalarType.Float32);
    private readonly ReferenceInputs _inputs = new(new Dictionary<string, Tensor> { ["input_ids"] = tensor(new long[] { 3, 7, 12, 9, 9, 5 }, [2, 3]) });

    public void Dispose()
    {
        _model.Dispose();
        _oracle.Dispose();
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void Trained_rows_of_the_embedding_are_those_of_the_head()
    {
        var before = _model.Run(_inputs).detach();
        var peft = _model.GetPeftModel(Config with { TrainableTokens = Tokens(("", Rows)) });
        var values = TokenParameter(peft, Embedding);
        TensorAssert.Close(before, _model.Run(_inputs), 1e-5, 1e-6, "output at the start");
        Compare(values, Rows);

        peft.Save(_folder);
        using (var file = SafetensorsReader.Open(Path.Combine(_folder, "adapter_model.safetensors")))
            Assert.Equal([$"base_model.model.{Embedding}.token_adapter.trainable_tokens_delta"], file.Entries.Keys.Where(k => k.Contains("token", StringComparison.Ordinal)));
        var active = _model.Run(_inputs).detach();
        using (peft.WithoutAdapter()) TensorAssert.Equal(before, _model.Run(_inputs), "switched off");
        peft.Merge();
        TensorAssert.Close(active, _model.Run(_inputs), 1e-5, 1e-5, "merged");
        peft.Unmerge();
        TensorAssert.Equal(active, _model.Run(_inputs), "taken out");
        peft.RenameAdapter("default", "rows");
        TensorAssert.Equal(active, _model.Run(_inputs), "renamed");
        peft.AddAdapter("other", Config with { TrainableTokens = Tokens(("", [4])) });
        peft.DeleteAdapter("other");
        TensorAssert.Equal(active, _model.Run(_inputs), "with another one gone");
        peft.Dispose();
        TensorAssert.Equal(before, _model.Run(_inputs), "unloaded");
        using (var loaded = PeftModel.Load(_model, _folder, "again")) TensorAssert.Equal(active, _model.Run(_inputs), "loaded");
        _model.GetPeftModel(Config with { TrainableTokens = Tokens(("", Rows)) }).MergeAndUnload();
        TensorAssert.Close(before, _model.Run(_inputs), 1e-5, 1e-6, "rows that were not trained, merged for good");
    }

    [Fact]
    public void Equal_rows_named_for_both_are_one_and_other_rows_of_the_head_are_its_own()
    {
        using (var peft = _model.GetPeftModel(Config with { TrainableTokens = Tokens(("embed_tokens", Rows), ("lm_head", Rows)) }))
        {
            Assert.Single(peft.TrainableParameters(), p => p.Name.Contains("token_adapter", StringComparison.Ordinal));
            Compare(TokenParameter(peft, Embedding), Rows);
        }
        var apart = Config with { TrainableTokens = Tokens(("embed_tokens", Rows), ("lm_head", [5])) };
        Assert.Equal("LoraConfig: ensure_weight_tying wants the same trainable_token_indices for model.embed_tokens [9, 3, 12] and lm_head [5], which share one weight; name the same, or give up the tie.",
            Assert.Throws<InvalidLoraConfigException>(() => _model.GetPeftModel(apart with { EnsureWeightTying = true })).Message);
        using var two = _model.GetPeftModel(apart);
        var before = _model.Run(_inputs).detach();
        using (no_grad()) TokenParameter(two, Head).add_(0.5);
        var change = (_model.Run(_inputs).detach() - before).abs().amax(0, 1);
        Assert.Equal([5L], change.gt(1e-4).nonzero().flatten().data<long>());
    }

    [Theory, InlineData("llama-bias"), InlineData("llama")]
    public void Rows_of_a_head_with_its_own_weight_are_its_columns_of_scores(string architecture)
    {
        using var model = ReferenceModel.Load(Path.Combine(Bases, architecture), "llama", ScalarType.Float32);
        using var peft = model.GetPeftModel(Config with { TrainableTokens = Tokens(("lm_head", Rows)) });
        var before = model.Run(_inputs).detach();
        using (no_grad()) TokenParameter(peft, Head).mul_(2).add_(0.25);
        var active = model.Run(_inputs).detach();
        peft.Merge();
        TensorAssert.Close(active, model.Run(_inputs), 1e-5, 1e-5, "merged");
        Assert.Equal([3L, 9L, 12L], (active - before).abs().amax(0, 1).gt(1e-4).nonzero().flatten().data<long>());
    }

    [Theory, InlineData("lm_head"), InlineData("embed_tokens")]
    public void A_kept_tie_trains_one_copy_for_both(string named)
    {
        var before = _model.Run(_inputs).detach();
        var peft = _model.GetPeftModel(Config with { ModulesToSave = [named], EnsureWeightTying = true });
        Assert.Empty(peft.Irregularities);
        var copy = peft.TrainableParameters().Single(p => p.Name == $"base_model.model.{Embedding}.modules_to_save.default.weight").Parameter;
        Assert.Single(peft.TrainableParameters(), p => p.Name.Contains("modules_to_save", StringComparison.Ordinal));
        Compare(copy, null);
        peft.Save(_folder);
        using (var file = SafetensorsReader.Open(Path.Combine(_folder, "adapter_model.safetensors")))
        {
            Assert.Equal([$"base_model.model.{Head}.weight", $"base_model.model.{Embedding}.weight"], file.Entries.Keys.Where(k => !k.Contains("lora_", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
            TensorAssert.Equal(copy, file.Load($"base_model.model.{Head}.weight"), "the head in the file");
        }
        var active = _model.Run(_inputs).detach();
        peft.Dispose();
        TensorAssert.Equal(before, _model.Run(_inputs), "unloaded");
        using (var loaded = PeftModel.Load(_model, _folder, "again")) TensorAssert.Equal(active, _model.Run(_inputs), "loaded");
        var merged = PeftModel.Load(_model, _folder, "again");
        merged.MergeAndUnload();
        TensorAssert.Close(active, _model.Run(_inputs), 1e-5, 1e-5, "merged for good");
        Assert.DoesNotContain(ModuleTree.Modules(_model), m => m.Module is IAdapterHost);
    }

    [Theory]
    [InlineData(true, "embed_tokens", "lm_head", null, "model.embed_tokens: it cannot have LoRA and be trained in full in one adapter; choose one of target_modules and modules_to_save.")]
    [InlineData(true, "embed_tokens", "q_proj", "", "model.embed_tokens: it cannot be trained in full and by rows in one adapter; choose one of modules_to_save and trainable_token_indices.")]
    [InlineData(false, "lm_head", "q_proj", "", "lm_head: it cannot be trained in full and by rows in one adapter; choose one of modules_to_save and trainable_token_indices.")]
    [InlineData(false, null, "lm_head", "", "lm_head: it cannot have LoRA and trained rows in one adapter; choose one of target_modules and trainable_token_indices.")]
    public void One_module_is_trained_in_one_way(bool tie, string? saved, string target, string? rows, string message)
    {
        var config = Config with
        {
            TargetModules = [target], EnsureWeightTying = tie, ModulesToSave = saved is null ? null : [saved], TrainableTokens = rows is null ? null : Tokens((rows, Rows)),
        };
        Assert.Equal(message, Assert.Throws<UnsupportedTargetException>(() => _model.GetPeftModel(config)).Message);
        Assert.DoesNotContain(ModuleTree.Modules(_model), m => m.Module is IAdapterHost);
    }

    [Fact]
    public void What_a_tie_makes_unclear_is_noted()
    {
        void Check(ReferenceModel model, LoraConfig config, params string[] notes)
        {
            using var peft = model.GetPeftModel(config, "a");
            Assert.Equal(notes, peft.Irregularities);
        }
        using var untied = ReferenceModel.Load(Path.Combine(Bases, "llama"), "llama", ScalarType.Float32);
        Check(untied, Config with { EnsureWeightTying = true }, "adapter 'a': ensure_weight_tying has no effect, since the model's embedding and output head are not tied");
        Check(_model, Config with { EnsureWeightTying = true }, "adapter 'a': ensure_weight_tying has no effect, since nothing of it is on model.embed_tokens or lm_head");
        const string both = ", but model.embed_tokens and lm_head share one weight; a merge changes both (ensure_weight_tying adapts both)";
        Check(_model, Config with { TargetModules = ["q_proj", "lm_head"] }, "adapter 'a' is on lm_head" + both);
        Check(_model, Config with { ModulesToSave = ["embed_tokens"] }, "adapter 'a' is on model.embed_tokens" + both);
        Check(_model, Config with { EnsureWeightTying = true, TrainableTokens = Tokens(("", Rows)) });
        Check(_model, Config);
        Assert.EndsWith("model.embed_tokens: 3 rows trained\nlm_head: uses the embedding's rows\n2 layers, 384 parameters", PeftModel.Preview(_model, Config with { TrainableTokens = Tokens(("", Rows)) }).ToString());
        Assert.Contains("model.embed_tokens: trained in full\nlm_head: uses the embedding's copy\n", PeftModel.Preview(_model, Config with { ModulesToSave = ["lm_head"], EnsureWeightTying = true }).ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Rows_of_a_weight_that_is_stored_in_bytes_cannot_be_trained()
    {
        using var model = new OneTable();
        Assert.Equal("words: its weight is stored as Byte, of which no rows can be trained; load this part unquantised.",
            Assert.Throws<UnsupportedTargetException>(() => model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["lin"], TrainableTokens = Tokens(("words", Rows)) })).Message);
    }

    private static Dictionary<string, IReadOnlyList<long>> Tokens(params (string Module, long[] Ids)[] tokens) => tokens.ToDictionary(t => t.Module, t => (IReadOnlyList<long>)t.Ids);

    private static Parameter TokenParameter(PeftModel peft, string path)
        => peft.TrainableParameters().Single(p => p.Name == $"base_model.model.{path}.token_adapter.trainable_tokens_delta.default").Parameter;

    // Moves the trained numbers, and the oracle's weight alike: outputs are equal, and so are gradients, to which both uses contribute.
    private void Compare(Parameter trained, long[]? rows)
    {
        var table = ((IEmbeddingTable)ModuleTree.Find(_oracle, Embedding)!).Weight;
        using (no_grad())
        {
            trained.add_(randn_like(trained) * 0.3);
            if (rows is null) table.copy_(trained);
            else table.index_copy_(0, tensor(rows), trained);
        }
        table.requires_grad = true;
        table.grad = null;
        trained.grad = null;
        var (got, wanted) = (_model.Run(_inputs), _oracle.Run(_inputs));
        TensorAssert.Close(wanted, got, 1e-5, 1e-5, "output");
        var gradient = randn_like(got);
        got.backward([gradient]);
        wanted.backward([gradient]);
        TensorAssert.Close(rows is null ? table.grad! : table.grad!.index_select(0, tensor(rows)), trained.grad!, 1e-4, 1e-4, "gradient");
    }

    private sealed class OneTable : nn.Module
    {
        private readonly nn.Module<Tensor, Tensor> words = new Bytes();
        private readonly nn.Module<Tensor, Tensor> lin = nn.Linear(4, 4);

        public OneTable()
            : base(nameof(OneTable)) => RegisterComponents();

        private sealed class Bytes : nn.Module<Tensor, Tensor>, IEmbeddingTable
        {
            private readonly Parameter weight = new(zeros([20, 4], ScalarType.Byte), requires_grad: false);

            public Bytes()
                : base(nameof(Bytes)) => RegisterComponents();

            public Parameter Weight => weight;

            public long? PaddingIndex => null;

            public override Tensor forward(Tensor x) => weight.index_select(0, x.flatten());
        }
    }
}
