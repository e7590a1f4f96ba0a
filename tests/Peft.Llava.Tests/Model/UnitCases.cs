using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>The recorded building blocks of area "model".</summary>
internal static class UnitCases
{
    public static IEnumerable<TheoryDataRow<string>> Rows(string unit)
        => Goldens.Rows("model", c => c.Kind == "unit" && c.Json.GetProperty("unit").GetString() == unit);

    public static SafetensorsReader Inputs(GoldenCase golden) => golden.Tensors(golden.Json.GetProperty("inputs").GetString()!);

    public static SafetensorsReader Expected(GoldenCase golden) => golden.Tensors(golden.Json.GetProperty("expected").GetString()!);

    public static double Tolerance(GoldenCase golden, string name) => golden.Json.GetProperty("tolerance").GetProperty(name).GetDouble();

    public static ScalarType Dtype(string name) => name switch
    {
        "F32" => ScalarType.Float32,
        "BF16" => ScalarType.BFloat16,
        _ => throw new ArgumentException(name),
    };

    /// <summary>A layer over recorded weights, in a dtype.</summary>
    public static DenseFrozenLinear Linear(SafetensorsReader inputs, string path, ScalarType dtype)
        => new(inputs.Load(path + ".weight").to(dtype), inputs.Load(path + ".bias").to(dtype));
}
