using System.Globalization;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The settings of a TorchSharp <see cref="Embedding"/>. It keeps them in native code and tells nobody, so they are read off what it does with a small
/// table.
/// </summary>
/// <param name="PaddingIndex">The row that gets no gradient, or null.</param>
/// <param name="MaxNorm">The norm that rows are cut to when they are looked up, or null.</param>
/// <param name="NormType">The p of that norm.</param>
/// <param name="ScalesByFrequency">Whether a row's gradient is divided by how often it was looked up.</param>
/// <param name="IsSparse">Whether the table's gradient is sparse.</param>
internal sealed record NativeEmbedding(long? PaddingIndex, double? MaxNorm, double NormType, bool ScalesByFrequency, bool IsSparse)
{
    // Longer than any norm a table is cut to.
    private const double Length = 1e6;

    /// <summary>Reads the settings; the embedding has its own table again afterwards.</summary>
    /// <param name="embedding">The embedding, which no pass is using.</param>
    public static NativeEmbedding Of(Embedding embedding)
    {
        var table = embedding.named_parameters(recurse: false).Single().parameter;
        try
        {
            using var scope = NewDisposeScope();
            using var grad = enable_grad();
            long rows = table.shape[0];
            // Every row twice: a gradient of 1 says that it was divided by 2.
            var (found, gradient, sparse) = LookUp(embedding, tensor([Length, 0.0]).expand(rows, 2), rows);
            var each = gradient.select(1, 0);
            var without = each.eq(0).nonzero();
            double longest = found.abs().max().ToDouble();
            double? norm = longest < Length * 0.999 ? Digits(longest, 12) : null;
            double type = 2;
            if (norm is { } cut)
            {
                double side = LookUp(embedding, tensor([Length, Length]).expand(rows, 2), rows).Found.max().ToDouble();
                double inverse = Math.Log2(cut / side);
                type = inverse < 1e-9 ? double.PositiveInfinity : Digits(1 / inverse, 6);
            }
            return new(without.shape[0] == 1 && rows > 1 ? without[0, 0].ToInt64() : null, norm, type, each.max().ToDouble() == 1, sparse);
        }
        finally
        {
            embedding.weight = table;
        }
    }

    private static (Tensor Found, Tensor Gradient, bool IsSparse) LookUp(Embedding embedding, Tensor content, long rows)
    {
        var small = new Parameter(content.contiguous().clone());
        embedding.weight = small;
        var found = embedding.call(arange(rows, ScalarType.Int64).repeat(2));
        found.sum().backward();
        var gradient = small.grad!;
        return (found.detach(), gradient.is_sparse ? gradient.to_dense() : gradient, gradient.is_sparse);
    }

    private static double Digits(double value, int digits)
        => double.Parse(value.ToString("G" + digits.ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
}
