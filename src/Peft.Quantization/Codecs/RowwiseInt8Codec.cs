using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Row-wise int8 quantisation as LLM.int8 does it (Dettmers et al., 2022): the source is cast to fp16, each row is scaled by 127 over its
/// largest magnitude, rounded half to even. With a threshold, entries at or above it are outliers: they do not count in their row's
/// maximum, and their whole columns are left out of the codes.
/// </summary>
public static class RowwiseInt8Codec
{
    /// <summary>Quantises a weight.</summary>
    /// <param name="weight">(out, in), fp32, bf16 or fp16.</param>
    /// <param name="name">What messages call it.</param>
    /// <returns>(out, in) int8 codes and (out) fp32 maxima, fresh, in the current dispose scope.</returns>
    /// <exception cref="NonFiniteWeightException">NaN, infinity, or a magnitude above fp16's 65504.</exception>
    /// <exception cref="UnsupportedWeightDtypeException">Another dtype.</exception>
    public static (Tensor Codes, Tensor Absmax) EncodeWeight(Tensor weight, string name = "weight")
    {
        ArgumentNullException.ThrowIfNull(weight);
        using var scope = NewDisposeScope();
        var (codes, absmax, _) = Encode(weight, 0f);
        FiniteWeights.Require(name, weight, absmax, ScalarType.Float16);
        return (codes.MoveToOuterDisposeScope(), absmax.MoveToOuterDisposeScope());
    }

    /// <summary>Quantises rows, such as activations.</summary>
    /// <param name="source">(rows, columns), fp32, bf16 or fp16.</param>
    /// <param name="threshold">From which magnitude (in fp16) on an entry is an outlier; 0 for none.</param>
    /// <returns>
    /// (rows, columns) int8 codes, zero in outlier columns; (rows) fp32 maxima; the numbers of the outlier columns (int64, ascending) or null
    /// with threshold 0. Fresh, in the current dispose scope.
    /// </returns>
    /// <exception cref="UnsupportedWeightDtypeException">Another dtype.</exception>
    public static (Tensor Codes, Tensor Absmax, Tensor? OutlierColumns) Encode(Tensor source, float threshold)
    {
        ArgumentNullException.ThrowIfNull(source);
        _ = FloatElements.KindOf(source.dtype);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var values = source.detach().contiguous();
        var codes = empty(values.shape, ScalarType.Int8, values.device);
        var absmax = empty([values.shape[0]], ScalarType.Float32, values.device);
        var flags = threshold > 0 ? zeros([values.shape[1]], ScalarType.Byte, values.device) : null;
        KernelSelection.For(values.device).EncodeRows(values, threshold, codes, absmax, flags);
        var columns = flags?.nonzero().view(-1);
        if (columns is not null && columns.numel() > 0) codes.index_fill_(1, columns, 0);
        return (codes.MoveToOuterDisposeScope(), absmax.MoveToOuterDisposeScope(), columns?.MoveToOuterDisposeScope());
    }

    /// <summary>The values in full: code * maximum / 127 in fp32, rounded to the dtype.</summary>
    /// <param name="codes">(rows, columns) int8.</param>
    /// <param name="absmax">(rows) fp32.</param>
    /// <param name="dtype">The dtype wanted.</param>
    /// <returns>A fresh (rows, columns) tensor, in the current dispose scope.</returns>
    /// <exception cref="QuantStateException">The maxima do not fit the codes.</exception>
    public static Tensor Decode(Tensor codes, Tensor absmax, ScalarType dtype)
    {
        ArgumentNullException.ThrowIfNull(codes);
        ArgumentNullException.ThrowIfNull(absmax);
        if (codes.dim() != 2 || absmax.numel() != codes.shape[0])
            throw new QuantStateException("int8 codes", $"SCB has {absmax.numel()} entries for codes of shape ({string.Join(", ", codes.shape)}); there is one per row.");
        using var noGrad = no_grad();
        var target = empty(codes.shape, dtype, codes.device);
        KernelSelection.For(codes.device).DecodeRows(codes, absmax, scaleFirst: false, target);
        return target;
    }
}
