using System.Globalization;
using System.Text.Json;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class OptimizerGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Optimizers() => QuantGolden.Rows("optim8");

    [Theory, MemberData(nameof(Optimizers))]
    public void Steps(string folder)
    {
        foreach (var level in KernelSelection.Supported)
        {
            using var forced = KernelSelection.Force(level);
            using var golden = new QuantGolden(folder);
            using var scope = NewDisposeScope();
            var dtype = QuantGolden.Dtype(golden.String("dtype"));
            var sizes = golden.Settings.GetProperty("sizes").EnumerateArray().Select(e => e.GetInt32()).ToArray();
            var record = golden.Settings.GetProperty("record").EnumerateArray().Select(e => e.GetInt32()).ToHashSet();
            var parameters = sizes.Select(n => new Parameter(golden.Inputs[Name("param", n)].clone().to(dtype))).ToArray();
            using var optimizer = Create(golden, parameters);
            for (int step = 1; step <= golden.Int("steps"); step++)
            {
                for (int i = 0; i < sizes.Length; i++) parameters[i].grad = golden.Inputs[Name("grads", sizes[i])][step - 1].to(dtype);
                optimizer.step();
                if (!record.Contains(step)) continue;
                var state = optimizer.StateDict();
                for (int i = 0; i < sizes.Length; i++)
                {
                    Compare(golden, $"step{step}_param_{sizes[i]}", parameters[i]);
                    foreach (var (name, value) in state[i].Tensors.Where(t => !t.Key.StartsWith("qmap", StringComparison.Ordinal)))
                        Compare(golden, $"step{step}_{name}_{sizes[i]}", value);
                }
            }
            CheckLayout(golden, optimizer);
        }
    }

    private static EightBitOptimizer Create(QuantGolden golden, Parameter[] parameters)
    {
        var args = golden.Settings.GetProperty("args");
        double Number(string name, double otherwise) => args.TryGetProperty(name, out var v) ? v.GetDouble() : otherwise;
        (double, double) Betas(double first, double second) => args.TryGetProperty("betas", out var v) ? (v[0].GetDouble(), v[1].GetDouble()) : (first, second);
        string kind = golden.String("optimizer");
        double rate = Number("lr", 1e-3);
        long least = kind is "AdamW" or "PagedAdamW" ? long.MaxValue : (long)Number("min_8bit_size", EightBitOptimizer.DefaultMinEightBitSize);
        string? file = kind.StartsWith("Paged", StringComparison.Ordinal) ? Path.Combine(Directory.CreateTempSubdirectory().FullName, "states") : null;
        switch (kind)
        {
            case "AdamW8bit" or "PagedAdamW8bit" or "AdamW" or "PagedAdamW":
                var (b1, b2) = Betas(0.9, 0.999);
                return new AdamW8bit(parameters, rate, Number("weight_decay", 1e-2), b1, b2, Number("eps", 1e-8), least, file);
            case "Adam8bit":
                (b1, b2) = Betas(0.9, 0.999);
                return new Adam8bit(parameters, rate, Number("weight_decay", 0), b1, b2, Number("eps", 1e-8), least);
            case "Lion8bit":
                (b1, b2) = Betas(0.9, 0.99);
                return new Lion8bit(parameters, rate, Number("weight_decay", 0), b1, b2, least);
            case "SGD8bit":
                return new Sgd8bit(parameters, rate, Number("momentum", 0), Number("weight_decay", 0), least);
            default:
                throw new NotSupportedException(kind);
        }
    }

    private static string Name(string kind, int size) => string.Create(CultureInfo.InvariantCulture, $"{kind}_{size}");

    private static void Compare(QuantGolden golden, string name, Tensor got)
    {
        var rule = golden.Rule(name);
        if (rule.TryGetProperty(got.dtype == ScalarType.Byte ? "uint8" : "float32", out var byDtype)) rule = byDtype;
        golden.Check(name, golden.Expected[name], got, rule);
    }

    /// <summary>Names, dtypes and shapes of the state are the recorded ones.</summary>
    private static void CheckLayout(QuantGolden golden, EightBitOptimizer optimizer)
    {
        var layout = golden.Case.Json.GetProperty("measured").GetProperty("state_dict_layout");
        foreach (var entry in optimizer.StateDict())
        {
            var recorded = layout.GetProperty(entry.Index.ToString(CultureInfo.InvariantCulture));
            Assert.Equal(recorded.GetProperty("step").GetString(), $"int {entry.Step}");
            var nested = recorded.GetProperty(EightBitOptimizer.NestedName).EnumerateObject().ToDictionary(p => p.Name, p => p.Value.GetString()!);
            Assert.Equal(nested.OrderBy(p => p.Key), entry.Tensors.OrderBy(p => p.Key).Select(t => KeyValuePair.Create(t.Key, Describe(t.Value))));
        }
    }

    private static string Describe(Tensor t)
        => $"tensor {(t.dtype == ScalarType.Byte ? "uint8" : "float32")} [{string.Join(", ", t.shape)}]";
}
