using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class ClipLayerTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("clip_layer");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Layer_and_its_parts_equal_the_recorded_ones(string folder)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var golden = new GoldenCase(folder);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = UnitCases.Expected(golden);
        var s = golden.Json.GetProperty("settings");
        double epsilon = s.GetProperty("eps").GetDouble();
        foreach (string name in (string[])["F32", "BF16"])
        {
            var dtype = UnitCases.Dtype(name);
            DenseFrozenLinear Linear(string path) => UnitCases.Linear(inputs, path, dtype);
            LayerNormalization Norm(string path) => new(inputs.Load(path + ".weight").to(dtype), inputs.Load(path + ".bias").to(dtype), epsilon);

            var x = inputs.Load("x").to(dtype);
            using var attention = new ClipAttention(Linear("self_attn.q_proj"), Linear("self_attn.k_proj"), Linear("self_attn.v_proj"),
                Linear("self_attn.out_proj"), s.GetProperty("heads").GetInt32());
            using var norm1 = Norm("layer_norm1");
            using var norm2 = Norm("layer_norm2");
            using var fc1 = Linear("mlp.fc1");
            using var mlp = new ClipMlp(fc1, Linear("mlp.fc2"));
            using var layer = new ClipLayer(attention, norm1, mlp, norm2);
            var mixed = attention.call(norm1.call(x));
            var hidden = fc1.call(norm2.call(x + mixed).flatten(0, 1)).view(x.shape[0], x.shape[1], -1);
            Near("attention", mixed);
            Near("fc1", hidden);
            Near("quick_gelu", QuickGelu.Apply(hidden));
            Near("output", layer.call(x));

            void Near(string part, Tensor got) => TensorAssert.Close(expected.Load($"{part}_{name}"), got,
                UnitCases.Tolerance(golden, name == "BF16" ? "bf16_atol" : "atol"), name == "BF16" ? 0 : UnitCases.Tolerance(golden, "rtol"), $"{part}_{name}",
                IsaSpread.Of(golden, $"{part}_{name}"));
        }
    }
}
