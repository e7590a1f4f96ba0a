using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>Dtypes by the names PyTorch gives them in JSON.</summary>
internal static class DtypeNames
{
    private static readonly (ScalarType Dtype, string Name)[] Table =
    [
        (ScalarType.Float32, "float32"), (ScalarType.BFloat16, "bfloat16"), (ScalarType.Float16, "float16"), (ScalarType.Byte, "uint8"),
    ];

    public static string ToPython(ScalarType dtype)
        => Array.Find(Table, row => row.Dtype == dtype).Name ?? throw new UnsupportedWeightDtypeException(dtype);

    public static ScalarType? FromPython(string name)
        => Array.Exists(Table, row => row.Name == name) ? Array.Find(Table, row => row.Name == name).Dtype : null;

    public static ScalarType FromPython(string weight, string name)
        => FromPython(name) ?? throw new QuantStateException(weight, $"its dtype '{name}' is not one of float32, bfloat16, float16.");
}
