using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>How a matrix product is computed on the CPU.</summary>
public enum ProductEngine
{
    /// <summary>By libtorch's operator, in the operands' dtype.</summary>
    Libtorch,

    /// <summary>By <see cref="PackedProduct"/>: operands are widened or decoded to float32 while they are packed.</summary>
    Packed,
}

/// <summary>
/// The one place that chooses how matrix products are computed: a function of the processor's level and the operands' dtype alone.
/// </summary>
/// <remarks>
/// libtorch has fast bfloat16 products only where the processor has instructions for them. Without these, <c>x Wᵀ</c> runs at a seventh of float32's speed
/// and <c>g W</c> at a five-hundredth (measured on AVX2), while the packed product runs all storages at float32's speed or above it.
/// </remarks>
public static class ProductChoice
{
    private static readonly AsyncLocal<ProductEngine?> Forced = new();

    /// <summary>The engine for products whose stored operands have a dtype.</summary>
    /// <param name="dtype">bfloat16 if any operand is; else float32.</param>
    /// <returns>libtorch for every other dtype.</returns>
    public static ProductEngine For(ScalarType dtype)
    {
        if (dtype is not (ScalarType.BFloat16 or ScalarType.Float32)) return ProductEngine.Libtorch;
        return Forced.Value ?? Choose(CpuLevels.Current, dtype);
    }

    /// <summary>Uses an engine until the result is disposed, in this flow of control.</summary>
    /// <param name="engine">The engine.</param>
    /// <returns>Restores the choice found.</returns>
    /// <exception cref="ArgumentOutOfRangeException">This processor cannot run it.</exception>
    public static IDisposable Force(ProductEngine engine)
    {
        if (engine == ProductEngine.Packed && CpuLevels.Current < CpuLevel.Avx2)
            throw new ArgumentOutOfRangeException(nameof(engine), engine, $"The packed product needs AVX2 with FMA; this process runs at {CpuLevels.Current}. Use {ProductEngine.Libtorch}.");
        var before = Forced.Value;
        Forced.Value = engine;
        return new AdapterScope(() => Forced.Value = before);
    }

    /// <summary>The choice for each dtype and its reason, one a line.</summary>
    public static IReadOnlyList<string> Describe()
    {
        var level = CpuLevels.Current;
        return [.. new[] { ScalarType.Float32, ScalarType.BFloat16 }.Select(dtype => $"{(dtype == ScalarType.Float32 ? "float32" : "bfloat16, 4-bit and int8")}: {Reason(For(dtype), level, dtype)}")];
    }

    /// <summary>Whether a product of two tensors runs on the packed product.</summary>
    internal static bool IsPacked(Tensor left, Tensor right)
        => left.device_type == DeviceType.CPU && right.device_type == DeviceType.CPU && IsEither(left.dtype) && IsEither(right.dtype)
            && For(left.dtype == ScalarType.BFloat16 || right.dtype == ScalarType.BFloat16 ? ScalarType.BFloat16 : ScalarType.Float32) == ProductEngine.Packed;

    private static bool IsEither(ScalarType dtype) => dtype is ScalarType.Float32 or ScalarType.BFloat16;

    private static ProductEngine Choose(CpuLevel level, ScalarType dtype) => level switch
    {
        CpuLevel.Avx2 => ProductEngine.Packed,
        CpuLevel.Avx512 when dtype == ScalarType.BFloat16 => ProductEngine.Packed,
        _ => ProductEngine.Libtorch,
    };

    private static string Reason(ProductEngine engine, CpuLevel level, ScalarType dtype)
    {
        if (Forced.Value is not null) return $"{engine} (forced)";
        if (engine == ProductEngine.Packed)
            return $"packed product in float32 ({(dtype == ScalarType.BFloat16 ? $"{level} has no bfloat16 products" : $"as fast as libtorch's at {level}, and one product for all storages")})";
        return level == CpuLevel.Avx512Bf16 ? $"libtorch ({level} has bfloat16 products)" : $"libtorch (level {level})";
    }
}
