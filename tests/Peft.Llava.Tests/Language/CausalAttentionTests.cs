using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class CausalAttentionTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("gqa_attention");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Packed_attention_equals_the_recorded_padded_one(string folder)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var golden = new GoldenCase(folder);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = UnitCases.Expected(golden);
        var s = golden.Json.GetProperty("settings");
        int headDim = s.GetProperty("hidden").GetInt32() / s.GetProperty("heads").GetInt32();
        var mask = inputs.Load("attention_mask").to(ScalarType.Bool);
        var layout = new SequenceLayout([.. mask.sum(1).data<long>().Select(n => (int)n)]);
        var positions = inputs.Load("position_ids").masked_select(mask);
        foreach (string name in (string[])["F32", "BF16"])
        {
            var dtype = UnitCases.Dtype(name);
            var x = inputs.Load("x").to(dtype)[mask];
            var tables = new RotaryEmbedding(headDim, s.GetProperty("theta").GetDouble(), 4096).Tables(positions, layout.PaddedLength, dtype);
            Tensor Project(string path, Tensor rows)
            {
                using var linear = UnitCases.Linear(inputs, path, dtype);
                return linear.call(rows);
            }

            var (q, k, v) = (Project("q_proj", x), Project("k_proj", x), Project("v_proj", x));
            bool rounded = name == "BF16";
            double atol = UnitCases.Tolerance(golden, rounded ? "bf16_atol" : "atol"), rtol = rounded ? 0 : UnitCases.Tolerance(golden, "rtol");
            foreach (var mixed in (Tensor[])[RotaryAttention.Reference(q, k, v, tables, layout), RotaryAttention.Apply(q, k, v, tables, layout)])
                foreach (string way in (string[])["eager", "sdpa"])
                    TensorAssert.Close(expected.Load($"{way}_{name}")[mask], Project("o_proj", mixed), atol, rtol, $"{way}_{name}", IsaSpread.Of(golden, $"{way}_{name}"));
        }
    }

    [Fact]
    public void Gradients_of_the_rectangular_form_reach_the_packed_rows()
    {
        using var scope = NewDisposeScope();
        manual_seed(4);
        var layout = new SequenceLayout([3, 5], PaddingSide.Left);
        var q = randn(8, 4, 6, requires_grad: true);
        var k = randn(8, 2, 6, requires_grad: true);
        var v = randn(8, 2, 6, requires_grad: true);
        CausalAttention.Apply(q, k, v, layout).square().sum().backward();
        var together = q.grad!.clone();
        var single = q.detach().narrow(0, 3, 5).requires_grad_(true);
        CausalAttention.Apply(single, k.detach().narrow(0, 3, 5), v.detach().narrow(0, 3, 5), new SequenceLayout([5])).square().sum().backward();
        TensorAssert.Close(single.grad!, together.narrow(0, 3, 5), 1e-5, 1e-5, "gradient of the second sequence alone");
    }
}
