using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Batches in which each sample has an adapter of its own: generated, run and trained as each sample alone.</summary>
public sealed class MixedBatchTests : IDisposable
{
    private const string Base = "__base__";
    private static readonly string[] Names = ["a", Base, "b", "b", "a"];
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly TinyLlava _tiny = TinyLlava.Create(7);
    private readonly LlavaBatchSample[] _samples;

    // LoRA in every part: decoder, head, embedding, projector, tower. Rows of each of these are counted in another way.
    private readonly PeftModel _peft;

    public MixedBatchTests()
    {
        _samples =
        [
            new("none", [1, 9, 8, 20, 31, 7], [1, 9, 8, 20, -100, 7], []), new("one", [1, 44, -200, 6], [-100, -100, -100, 6], [Picture(1)]),
            new("short", [1, 5], [-100, 5], []), new("two", [1, -200, 12, -200, 6, 33, 71], [-100, -100, 12, -100, 6, 33, -100], [Picture(2), Picture(3)]),
            new("last", [1, 44, -200, 6, 18], [-100, 44, -100, -100, 18], [Picture(4)]),
        ];
        _peft = _tiny.Model.GetPeftModel(Config, "a");
        _peft.AddAdapter("b", Config with { Rank = 5, TargetModules = ["q_proj", "down_proj", "embed_tokens", "model.mm_projector.2"] });
        using var noGrad = no_grad();
        foreach (var (_, parameter) in _peft.NamedParameters().Where(p => p.Name.Contains("lora_", StringComparison.Ordinal))) parameter.copy_(randn_like(parameter) * 0.4);
    }

    private static LoraConfig Config => new()
    {
        Rank = 3, Alpha = 7,
        TargetModules = ["v_proj", "up_proj", "lm_head", "embed_tokens", "model.mm_projector.0", "model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"],
    };

    public void Dispose()
    {
        _peft.Dispose();
        _tiny.Dispose();
        _scope.Dispose();
    }

    [Theory, InlineData(PaddingSide.Left, false), InlineData(PaddingSide.Right, false), InlineData(PaddingSide.Right, true)]
    public void Each_sample_is_continued_as_alone_while_others_end_earlier(PaddingSide side, bool atPadding)
    {
        var options = new GenerationOptions { MaxNewTokens = 11, EosTokenIds = [], ReadFirstTokenAtPadding = atPadding };
        // What is read at a padded position depends on the other rows' lengths: there the twin is the same batch with one adapter for all.
        IReadOnlyList<int> Alone(int i, GenerationOptions o)
        {
            using var scope = Names[i] == Base ? _peft.WithoutAdapter() : _peft.WithAdapters(Names[i]);
            return atPadding ? Generate(o, side, _samples).TokenIds[i] : Generate(o, side, _samples[i]).TokenIds[0];
        }
        var endless = Enumerable.Range(0, Names.Length).Select(i => Alone(i, options)).ToList();
        options = options with { EosTokenIds = [endless[0][2], endless[3][4]] };
        var alone = Enumerable.Range(0, Names.Length).Select(i => Alone(i, options)).ToList();
        Assert.True(alone.Select(ids => ids.Count).Distinct().Count() >= 3, "The samples end too much at the same time for this test.");

        using var mixed = _peft.WithAdaptersBySample(Names);
        Assert.Equal(alone, Generate(options, side, _samples).TokenIds);
        using var all = _peft.WithAdaptersBySample(Names.Select(_ => "b").ToList());
        Assert.NotEqual(alone, Generate(options, side, _samples).TokenIds);
    }

    [Fact]
    public void Sampled_text_is_that_of_a_batch_that_has_the_samples_adapter_throughout()
    {
        // The draws of a step are dealt out over the rows that are left: rows end at the same steps in all runs.
        var options = new GenerationOptions
        {
            MaxNewTokens = 9, EosTokenIds = [], Sampling = new() { Seed = 12, Temperature = 1.3, TopK = 50, TopP = 0.95 }, RepetitionPenalty = 1.1, ShouldStop = (row, ids) => ids.Count == 3 + row,
        };
        var uniform = new Dictionary<string, GenerationResult>();
        foreach (string name in Names.Distinct())
        {
            using var scope = name == Base ? _peft.WithoutAdapter() : _peft.WithAdapters(name);
            uniform[name] = Generate(options, PaddingSide.Left, _samples);
        }
        using var mixed = _peft.WithAdaptersBySample(Names);
        var got = Generate(options, PaddingSide.Left, _samples);
        for (int i = 0; i < Names.Length; i++) Assert.Equal(uniform[Names[i]].TokenIds[i], got.TokenIds[i]);
        Assert.Equal([3, 4, 5, 6, 7], got.TokenIds.Select(ids => ids.Count));
        Assert.NotEqual(uniform["a"].TokenIds[2], uniform["b"].TokenIds[2]);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void A_mixed_batch_is_trained_as_its_samples_alone(bool checkpointing)
    {
        _peft.SetActive("a", "b");
        _tiny.Model.train();
        _tiny.Model.GradientCheckpointing = checkpointing;
        _tiny.Model.VisionTower!.GradientsFlow = true;
        double wanted = 0;
        for (int i = 0; i < Names.Length; i++)
        {
            using var scope = Names[i] == Base ? _peft.WithoutAdapter() : _peft.WithAdapters(Names[i]);
            using var one = Build(PaddingSide.Right, _samples[i]);
            var sum = _tiny.Model.LossSum(one).Sum;
            wanted += sum.ToDouble();
            if (sum.requires_grad) sum.backward();
        }
        var gradients = _peft.TrainableParameters().Select(p => p.Parameter.grad?.clone() ?? zeros_like(p.Parameter)).ToList();
        Assert.All(gradients, g => Assert.True(g.abs().max().ToDouble() > 0));
        foreach (var (_, parameter) in _peft.TrainableParameters()) parameter.grad = null;

        using var batch = Build(PaddingSide.Right, _samples);
        Tensor loss;
        using (_peft.WithAdaptersBySample(Names)) loss = _tiny.Model.LossSum(batch).Sum;
        Assert.Equal(wanted, loss.ToDouble(), 1e-4 * wanted);
        loss.backward();             // the scope has ended: what runs again for the backward has the adapters it had
        foreach (var ((name, parameter), gradient) in _peft.TrainableParameters().Zip(gradients)) TensorAssert.Close(gradient, parameter.grad!, 2e-5, 1e-4, name);
    }

    [Theory, InlineData(LogitRows.All), InlineData(LogitRows.Last)]
    public void Scores_of_a_mixed_batch_are_those_of_its_samples_alone(LogitRows rows)
    {
        using var noGrad = no_grad();
        var options = new ForwardOptions { Logits = rows, Loss = false, ProjectorAlwaysTakesPart = true };
        var alone = new List<Tensor>();
        for (int i = 0; i < Names.Length; i++)
        {
            using var scope = Names[i] == Base ? _peft.WithoutAdapter() : _peft.WithAdapters(Names[i]);
            using var one = Build(PaddingSide.Right, _samples[i]);
            alone.Add(_tiny.Model.Forward(one, options).Logits!);
        }
        using var batch = Build(PaddingSide.Right, _samples);
        using var mixed = _peft.WithAdaptersBySample(Names);
        TensorAssert.Close(cat(alone, 0), _tiny.Model.Forward(batch, options).Logits!, 1e-5, 1e-5, "logits");
        using var text = Build(PaddingSide.Right, _samples[0], _samples[2]);
        using var two = _peft.WithAdaptersBySample(["a", "b"]);
        TensorAssert.Close(cat([alone[0], alone[2]], 0), _tiny.Model.Forward(text, options).Logits!, 1e-5, 1e-5, "logits without a picture");
    }

    [Fact]
    public void Another_number_of_names_than_samples_is_refused_before_anything_runs()
    {
        using var mixed = _peft.WithAdaptersBySample(["a", "b"]);
        Assert.Equal("2 adapter names were given for a batch of 5 samples; give one name for each sample, __base__ for none.",
            Assert.Throws<AdapterStateException>(() => Generate(new() { MaxNewTokens = 2 }, PaddingSide.Right, _samples)).Message);
    }

    [Fact]
    public void Generating_with_mixed_adapters_leaves_no_tensor_behind()
    {
        using var batch = Build(PaddingSide.Left, _samples);
        using var mixed = _peft.WithAdaptersBySample(Names);
        LeakGuard.AssertFlat(3, () => new TextGenerator(_tiny.Model).Generate(batch, new() { MaxNewTokens = 5, EosTokenIds = [], ShouldStop = (row, ids) => ids.Count > row }));
    }

    private static ImageTiles Picture(int seed)
    {
        using var generator = new Generator((ulong)seed);
        return new(randn([1, 3, 28, 28], generator: generator), new ImageSize(28, 28));
    }

    private LlavaBatch Build(PaddingSide side, params LlavaBatchSample[] samples) => new LlavaBatchBuilder(_tiny.Model.Config, new() { PaddingSide = side }).Build(samples);

    private GenerationResult Generate(GenerationOptions options, PaddingSide side, params LlavaBatchSample[] samples)
    {
        using var batch = Build(side, samples);
        return new TextGenerator(_tiny.Model).Generate(batch, options);
    }
}
