using Peft.Core;
using Peft.Llava.Tests.Training;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Language;

public sealed class GradientCheckpointTests
{
    private static readonly LoraConfig EveryLinear = new()
    {
        Rank = 3, Alpha = 7, Dropout = 0.25, TargetModules = TargetModules.AllLinear, ExcludeModules = TargetModules.Regex(".*vision_tower.*"), BaseModel = "tiny",
    };

    [Theory]
    [InlineData(7)]
    [InlineData(700)]       // the fused kernels run
    public void All_layers_but_the_last_run_twice_and_the_gradients_are_the_same_bit_for_bit(int tokens)
    {
        using var tiny = TinyLlava.Create(seed: 4);
        manual_seed(5);
        using var peft = tiny.Model.GetPeftModel(EveryLinear);
        foreach (var (_, b) in tiny.Model.named_parameters().Where(p => p.name.Contains("lora_B", StringComparison.Ordinal)))
            using (no_grad()) nn.init.normal_(b, 0, 0.05);
        var layers = ModuleTree.Modules(tiny.Model).Where(m => m.Module is LlamaMlp).Select(m => (LlamaMlp)m.Module).ToList();
        Assert.True(layers.Count > 1);
        var runs = new int[layers.Count];
        var hooks = layers.Select((layer, i) => layer.register_forward_pre_hook((_, input) =>
        {
            runs[i]++;
            return input;
        })).ToList();

        var plain = Gradients(tiny.Model, tokens, checkpointing: false);
        Assert.All(runs, count => Assert.Equal(1, count));
        Array.Clear(runs);
        var checkpointed = Gradients(tiny.Model, tokens, checkpointing: true);

        Assert.Equal([.. Enumerable.Repeat(2, layers.Count - 1), 1], runs);
        Assert.Equal(plain.Keys, checkpointed.Keys);
        Assert.Contains(plain.Keys, name => name.Contains("layers.0.self_attn.o_proj", StringComparison.Ordinal));
        foreach (var (name, gradient) in plain)
        {
            Assert.Contains(gradient, v => v != 0);
            Assert.True(gradient.AsSpan().SequenceEqual(checkpointed[name]), $"{name} has another gradient");
        }
        foreach (var hook in hooks) hook.remove();
    }

    private static SortedDictionary<string, float[]> Gradients(LlavaModel model, int tokens, bool checkpointing)
    {
        using var scope = NewDisposeScope();
        model.train();
        model.GradientCheckpointing = checkpointing;
        model.zero_grad();
        long[] ids = [1, .. Enumerable.Range(0, tokens).Select(i => 3L + (i * 5) % 90)];
        var batch = new LlavaBatchBuilder(model.Config).Build([new LlavaBatchSample("s", ids, [.. ids.Select((id, i) => i < 3 ? LlavaBatchBuilder.IgnoredLabel : id)], [])]);
        manual_seed(6);     // the dropout's masks
        model.LossSum(batch).Sum.backward();
        var gradients = new SortedDictionary<string, float[]>(StringComparer.Ordinal);
        foreach (var (name, parameter) in model.named_parameters())
            if (parameter.grad is { } gradient) gradients[name] = gradient.data<float>().ToArray();
        return gradients;
    }
}
