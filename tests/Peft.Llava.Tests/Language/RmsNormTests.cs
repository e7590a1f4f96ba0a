using System.Globalization;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class RmsNormTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("rms_norm");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Norm_equals_the_recorded_one_in_value_and_dtype(string folder)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var golden = new GoldenCase(folder);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = UnitCases.Expected(golden);
        foreach (string name in expected.Entries.Keys)
        {
            string[] parts = name.Split('_');
            double epsilon = double.Parse(parts[0]["eps".Length..], CultureInfo.InvariantCulture);
            using var norm = new RmsNorm(inputs.Load("weight").to(UnitCases.Dtype(parts[1][1..])), epsilon);
            var x = inputs.Load("x").to(UnitCases.Dtype(parts[2][1..]));
            var wanted = expected.Load(name);
            bool rounded = x.dtype == ScalarType.BFloat16;
            double atol = rounded ? 0 : UnitCases.Tolerance(golden, "atol");
            double rtol = UnitCases.Tolerance(golden, rounded ? "bf16_rtol" : "rtol");
            foreach (var got in (Tensor[])[norm.call(x), RmsNormalization.Apply(x, norm.Weight, epsilon), RmsNormalization.Reference(x, norm.Weight, epsilon)])
            {
                Assert.Equal(wanted.dtype, got.dtype);
                TensorAssert.Close(wanted, got, atol, rtol, name, IsaSpread.Of(golden, name));
            }
        }
    }
}
