using Peft.Core;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>What stops a model from being made of LLaVA's arguments, and that nothing of it stays.</summary>
[Collection(ProcessWideState.Name)]
public sealed class LlavaRecipeTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    /// <summary>A run that assembles base, tower and the projector of stage 1.</summary>
    public static IEnumerable<TheoryDataRow<string>> Runs
        => Goldens.Rows("training", c => c.Json.TryGetProperty("argv", out var argv) && argv.EnumerateArray().Any(a => a.GetString() == "--pretrain_mm_mlp_adapter")).Take(1);

    public void Dispose() => _folder.Dispose();

    [Theory, Trait(Goldens.Trait, "training"), MemberData(nameof(Runs))]
    public void A_projector_of_another_shape_is_named(string folder)
    {
        string projector = _folder.File("mm_projector.bin");
        using (var weight = ones(2, 3)) PickleWriter.Write(projector, new Dictionary<string, Tensor> { ["model.mm_projector.0.weight"] = weight });
        var arguments = new GoldenRun(folder, _folder.Path).Arguments;
        arguments = arguments with { Model = arguments.Model with { ProjectorWeights = projector } };
        var e = Assert.Throws<CheckpointMismatchException>(() => LlavaRecipe.PrepareModel(arguments));
        Assert.Contains("4 tensor(s) do not fit the model that the configuration describes.\n", e.Message, StringComparison.Ordinal);
        Assert.Contains("\n  shape: model.mm_projector.0.weight: ", e.Message, StringComparison.Ordinal);
        Assert.Contains("\n  missing: model.mm_projector.0.bias", e.Message, StringComparison.Ordinal);
        LeakGuard.AssertFlat(2, () => Assert.Throws<CheckpointMismatchException>(() => LlavaRecipe.PrepareModel(arguments)));
    }

    [Theory, Trait(Goldens.Trait, "training"), MemberData(nameof(Runs))]
    public void Adapters_that_cannot_be_are_refused_and_the_model_goes(string folder)
    {
        var arguments = new GoldenRun(folder, _folder.Path).Arguments;
        arguments = arguments with { Lora = arguments.Lora with { Enabled = true, Rank = 0, Alpha = 5 } };
        Assert.Equal("LoraConfig: r must be at least 1, got 0.", Assert.Throws<InvalidLoraConfigException>(() => LlavaRecipe.PrepareModel(arguments)).Message);
        LeakGuard.AssertFlat(2, () => Assert.Throws<InvalidLoraConfigException>(() => LlavaRecipe.PrepareModel(arguments)));
    }
}
