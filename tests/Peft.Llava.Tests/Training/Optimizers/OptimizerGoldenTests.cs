using System.Text.Json;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

public sealed class OptimizerGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("training", c => c.Json.TryGetProperty("adafactor", out _));

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "training"), Trait("Level", "any")]
    public void Steps_and_clipping_equal_the_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var inputs = golden.Tensors("inputs.safetensors");
        using var expected = golden.Tensors("expected.safetensors");
        foreach (var row in golden.Json.GetProperty("adamw").EnumerateArray())
        {
            CheckAdamW(row, inputs, expected, fused: true);
            CheckAdamW(row, inputs, expected, fused: false);
        }
        foreach (var row in golden.Json.GetProperty("adafactor").EnumerateArray()) CheckAdafactor(row, inputs, expected);
        foreach (var row in golden.Json.GetProperty("clip").EnumerateArray()) CheckClip(row, inputs, expected);
    }

    private static void CheckAdamW(JsonElement row, ITensorReader inputs, ITensorReader expected, bool fused)
    {
        using var scope = NewDisposeScope();
        string key = row.GetProperty("key").GetString()!;
        var dtype = Dtype(row);
        var parameters = Parameters(inputs, dtype);
        var group = new ParameterGroup("all", parameters, row.GetProperty("lr").GetDouble(), row.GetProperty("weight_decay").GetDouble());
        var betas = row.GetProperty("betas");
        using var optimizer = new AdamW([group], betas[0].GetDouble(), betas[1].GetDouble(), row.GetProperty("eps").GetDouble(),
            row.GetProperty("optimizer").GetString() == "adamw_hf" ? AdamWForm.Transformers : AdamWForm.Torch, fused);
        double atol = row.GetProperty("tolerance").GetProperty("atol").GetDouble();
        double rtol = row.GetProperty("tolerance").GetProperty("rtol").GetDouble();
        // Where torch's plain loop is repeated bit for bit by its written-out operations, both ways must do so as well.
        if (dtype == ScalarType.BFloat16 && row.TryGetProperty("bits_equal_to_written_out_operations", out var same) && same.GetBoolean()) (atol, rtol) = (0, 0);
        for (int step = 1; inputs.Entries.ContainsKey($"grad/{step}/0"); step++)
        {
            SetGradients(parameters, inputs, step, dtype, 1);
            optimizer.Step();
            for (int i = 0; i < parameters.Count; i++)
                TensorAssert.Close(expected.Load($"{key}/step{step}/{i}"), parameters[i].Parameter, atol, rtol, $"{key} fused {fused} step {step} tensor {i}");
        }
        for (int i = 0; i < parameters.Count; i++)
            foreach (string kind in new[] { "exp_avg", "exp_avg_sq" })
                TensorAssert.Close(expected.Load($"{key}/{kind}/{i}"), optimizer.State[$"{kind}/{i}"], atol, dtype == ScalarType.BFloat16 ? rtol : 1e-6, $"{key} fused {fused} {kind} {i}");
    }

    private static void CheckAdafactor(JsonElement row, ITensorReader inputs, ITensorReader expected)
    {
        using var scope = NewDisposeScope();
        string key = row.GetProperty("key").GetString()!;
        var parameters = Parameters(inputs, ScalarType.Float32);
        double rate = row.GetProperty("lr").ValueKind == JsonValueKind.Null ? 0 : row.GetProperty("lr").GetDouble();
        var group = new ParameterGroup("all", parameters, rate, row.TryGetProperty("weight_decay", out var decay) ? decay.GetDouble() : 0);
        using var optimizer = new Adafactor([group], new AdafactorSettings
        {
            GradientEpsilon = row.GetProperty("eps")[0].GetDouble(),
            ParameterEpsilon = row.GetProperty("eps")[1].GetDouble(),
            ClipThreshold = row.GetProperty("clip_threshold").GetDouble(),
            DecayRate = row.GetProperty("decay_rate").GetDouble(),
            Beta1 = row.GetProperty("beta1").ValueKind == JsonValueKind.Null ? null : row.GetProperty("beta1").GetDouble(),
            ScaleParameter = row.GetProperty("scale_parameter").GetBoolean(),
            RelativeStep = row.GetProperty("relative_step").GetBoolean(),
            WarmupInit = row.TryGetProperty("warmup_init", out var warm) && warm.GetBoolean(),
        });
        double atol = row.GetProperty("tolerance").GetProperty("atol").GetDouble();
        for (int step = 1; inputs.Entries.ContainsKey($"grad/{step}/0"); step++)
        {
            SetGradients(parameters, inputs, step, ScalarType.Float32, 1);
            optimizer.Step();
            for (int i = 0; i < parameters.Count; i++)
                TensorAssert.Close(expected.Load($"{key}/step{step}/{i}"), parameters[i].Parameter, atol, 0, $"{key} step {step} tensor {i}");
        }
    }

    private static void CheckClip(JsonElement row, ITensorReader inputs, ITensorReader expected)
    {
        using var scope = NewDisposeScope();
        string key = row.GetProperty("key").GetString()!;
        var dtype = Dtype(row);
        var parameters = Parameters(inputs, dtype);
        SetGradients(parameters, inputs, row.GetProperty("grad_step").GetInt32(), dtype, row.GetProperty("gradient_divided_by").GetDouble());
        var norm = GradientNorm.Measure(parameters, row.GetProperty("max_norm").GetDouble());
        double rtol = dtype == ScalarType.BFloat16 ? Math.Pow(2, -7) : 1e-6;
        double recorded = row.GetProperty("norm").GetDouble();
        Assert.True(Math.Abs(norm.Norm - recorded) <= rtol * recorded, $"{key}: expected norm {recorded:R}, got {norm.Norm:R}.");
        for (int i = 0; i < parameters.Count; i++)
        {
            var clipped = parameters[i].Parameter.grad!.mul(norm.Factor);
            TensorAssert.Close(expected.Load($"{key}/{i}"), clipped, 0, rtol, $"{key} gradient {i}");
        }
    }

    private static ScalarType Dtype(JsonElement row) => row.GetProperty("dtype").GetString() == "bfloat16" ? ScalarType.BFloat16 : ScalarType.Float32;

    private static List<NamedParameter> Parameters(ITensorReader inputs, ScalarType dtype)
    {
        var list = new List<NamedParameter>();
        for (int i = 0; inputs.Entries.ContainsKey($"init/{i}"); i++)
            list.Add(new NamedParameter($"{i}", new Parameter(inputs.Load($"init/{i}").to(dtype))));
        return list;
    }

    private static void SetGradients(List<NamedParameter> parameters, ITensorReader inputs, int step, ScalarType dtype, double divisor)
    {
        for (int i = 0; i < parameters.Count; i++)
        {
            using var loaded = inputs.Load($"grad/{step}/{i}");
            parameters[i].Parameter.grad = divisor == 1 ? loaded.to(dtype, copy: true) : loaded.to(dtype).div(divisor);
        }
    }
}
