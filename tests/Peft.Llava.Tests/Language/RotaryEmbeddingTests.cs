using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class RotaryEmbeddingTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => UnitCases.Rows("rope");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Rotation_equals_the_recorded_calls_of_transformers_4(string folder)
        => Check(new GoldenCase(folder), "expected", DynamicRopeMemory.Largest, fromPositions: false);

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Rotation_equals_the_recorded_calls_of_transformers_5(string folder)
        => Check(new GoldenCase(folder), "expected_hf", DynamicRopeMemory.LargestUntilShort, fromPositions: true);

    [Fact]
    public void Without_memory_the_same_call_gives_the_same_tables_whatever_came_before()
    {
        using var scope = NewDisposeScope();
        var rope = new RotaryEmbedding(8, 10000, 12, new RopeScaling(RopeScalingKind.Dynamic, 2));
        var positions = arange(5);
        var before = rope.Tables(positions, 5, ScalarType.Float32);
        rope.Tables(arange(40), 40, ScalarType.Float32);
        TensorAssert.Equal(before.Cos, rope.Tables(positions, 5, ScalarType.Float32).Cos, "cos");
    }

    private static void Check(GoldenCase golden, string file, DynamicRopeMemory memory, bool fromPositions)
    {
        using var scope = NewDisposeScope();
        var s = golden.Json.GetProperty("settings");
        string? kind = s.TryGetProperty("type", out var type) ? type.GetString() : null;
        var scaling = kind is null ? null
            : new RopeScaling(kind == "linear" ? RopeScalingKind.Linear : RopeScalingKind.Dynamic, s.GetProperty("factor").GetDouble());
        var rope = new RotaryEmbedding(s.GetProperty("head_dim").GetInt32(), s.GetProperty("theta").GetDouble(),
            s.GetProperty("max_position").GetInt32(), scaling, memory);
        using var inputs = UnitCases.Inputs(golden);
        using var expected = golden.Tensors(golden.Json.GetProperty(file).GetString()!);
        double atol = UnitCases.Tolerance(golden, "atol"), rtol = UnitCases.Tolerance(golden, "rtol");
        int i = 0;
        foreach (var call in s.GetProperty("calls").EnumerateArray())
        {
            var positions = inputs.Load($"position_ids{i}");
            int length = fromPositions ? (int)positions.max().ToInt64() + 1 : call.GetProperty("seq_len").GetInt32();
            var tables = rope.Tables(positions.flatten(), length, ScalarType.Float32);
            Near($"cos{i}", Twice(tables.Cos, positions));
            Near($"sin{i}", Twice(tables.Sin, positions));
            // Version 5 divides frequencies where version 4 divides positions.
            double divisor = fromPositions && scaling is { Kind: RopeScalingKind.Linear } ? scaling.Factor : 1;
            Near($"inv_freq{i}", rope.InverseFrequencies(length) / divisor);
            foreach (string dtype in (string[])["F32", "BF16"])
            {
                if (!expected.Entries.ContainsKey($"q{i}_{dtype}")) continue;
                var (cos, sin) = (tables.Cos.to(UnitCases.Dtype(dtype)), tables.Sin.to(UnitCases.Dtype(dtype)));
                foreach (string name in (string[])["q", "k"])
                {
                    var x = inputs.Load($"{name}{i}").to(UnitCases.Dtype(dtype));
                    var rows = x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3]);
                    var got = RotaryEmbedding.Rotate(rows, cos, sin).view(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2);
                    bool rounded = dtype == "BF16";
                    TensorAssert.Close(expected.Load($"{name}{i}_{dtype}"), got, rounded ? UnitCases.Tolerance(golden, "bf16_atol") : atol,
                        rounded ? UnitCases.Tolerance(golden, "bf16_rtol") : rtol, $"{name}{i}_{dtype}",
                        IsaSpread.Of(golden, file == "expected" ? $"{name}{i}_{dtype}" : $"{file}/{name}{i}_{dtype}"));
                }
            }
            i++;
        }

        void Near(string name, Tensor got) => TensorAssert.Close(expected.Load(name), got, atol, rtol, name);
    }

    private static Tensor Twice(Tensor half, Tensor positions) => cat([half, half], -1).view(positions.shape[0], positions.shape[1], -1);
}
