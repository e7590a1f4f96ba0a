using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class SupervisedLossTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("cross_entropy");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Loss_and_gradients_equal_the_recorded_ones(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = UnitCases.Expected(golden);
        var labels = inputs.Load("labels");
        long ignored = golden.Json.GetProperty("settings").GetProperty("ignore_index").GetInt64();
        double atol = UnitCases.Tolerance(golden, "atol"), rtol = UnitCases.Tolerance(golden, "rtol");
        foreach (string name in (string[])["F32", "BF16"])
        {
            foreach (string reduction in (string[])["mean", "sum_over_num_items"])
            {
                var logits = inputs.Load("logits").to(UnitCases.Dtype(name)).requires_grad_(true);
                var (sum, count) = Sum(logits, labels, ignored);
                var loss = sum / (reduction == "mean" ? count : golden.Json.GetProperty("settings").GetProperty("num_items").GetInt64());
                loss.backward();
                TensorAssert.Close(expected.Load($"loss_{reduction}_{name}"), loss, atol, rtol, $"loss_{reduction}_{name}", IsaSpread.Of(golden, $"loss_{reduction}_{name}"));
                TensorAssert.Close(expected.Load($"grad_{reduction}_{name}"), logits.grad!, atol,
                    name == "BF16" ? UnitCases.Tolerance(golden, "bf16_grad_rtol") : rtol, $"grad_{reduction}_{name}",
                    IsaSpread.Of(golden, $"grad_{reduction}_{name}"));
            }
        }
        var (none, zero) = Sum(inputs.Load("logits").to(ScalarType.Float32), full_like(labels, ignored), ignored);
        TensorAssert.Close(expected.Load("loss_all_ignored_sum"), none, 0, 0, "sum of no loss");
        TensorAssert.Close(expected.Load("loss_all_ignored_mean"), none / zero, 0, 0, "mean of no loss");
    }

    /// <summary>The loss of given logits: the head is the identity, states are logits.</summary>
    private static (Tensor Sum, long Count) Sum(Tensor logits, Tensor labels, long ignored)
    {
        long vocabulary = logits.shape[2];
        var head = new DenseFrozenLinear(eye(vocabulary, dtype: logits.dtype));
        var next = full_like(labels, ignored);
        next.narrow(1, 0, labels.shape[1] - 1).copy_(labels.narrow(1, 1, labels.shape[1] - 1));
        var rows = next.flatten().ne(ignored).nonzero().flatten();
        return (SupervisedLoss.Sum(logits.view(-1, vocabulary).index_select(0, rows), next.flatten().index_select(0, rows), head), rows.shape[0]);
    }
}
