using CsCheck;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>Every kernel level against the plain-tensor reference, on random shapes, dtypes and contents.</summary>
[Trait("Level", "any")]
public sealed class KernelPropertyTests
{
    private static readonly Gen<ScalarType> Dtypes = Gen.OneOf(Gen.Const(ScalarType.Float32), Gen.Const(ScalarType.BFloat16), Gen.Const(ScalarType.Float16));

    /// <summary>Element count (odd ones too), block size, dtype, seed, and how much of the content is zero, tiny or far out.</summary>
    private static readonly Gen<(int Count, int BlockSize, ScalarType Dtype, int Seed, int Content)> Cases =
        Gen.Select(Gen.Int[1, 3000], Gen.Int[0, 4].Select(i => new[] { 64, 128, 256, 1024, 4096 }[i]), Dtypes, Gen.Int[0, 1 << 20], Gen.Int[0, 4]);

    [Fact]
    public void Four_bit_bytes_and_values_equal_the_reference() => Cases.Sample(c =>
    {
        foreach (var type in new[] { QuantType.Nf4, QuantType.Fp4 })
        {
            AgainstReference(() =>
            {
                using var packed = new FourBitCodec(type, c.BlockSize, c.Seed % 2 == 0).Encode(Values(c.Count, c.Dtype, c.Seed, c.Content));
                return
                [
                    packed.Codes.clone(), packed.Absmax.clone(), FourBitCodec.BlockMaxima(packed), FourBitCodec.Decode(packed, ScalarType.Float32),
                    FourBitCodec.Decode(packed, ScalarType.BFloat16), FourBitCodec.Decode(packed, ScalarType.Float16),
                ];
            });
        }
    }, iter: 60, threads: 1);

    [Fact]
    public void Eight_bit_blocks_equal_the_reference() => Cases.Sample(c =>
    {
        foreach (var map in new[] { EightBitMap.DynamicSigned, EightBitMap.DynamicUnsigned, EightBitMap.LinearSigned })
        {
            AgainstReference(() =>
            {
                var codec = new BlockwiseCodec(map, c.BlockSize);
                var (codes, absmax) = codec.Encode(Values(c.Count, c.Dtype, c.Seed, c.Content));
                return [codes, absmax, codec.Decode(codes, absmax, c.Dtype)];
            });
        }
    }, iter: 60, threads: 1);

    [Fact]
    public void Eight_bit_codes_are_right_on_both_sides_of_every_midpoint()
    {
        // Evenly spaced by logarithm, down to where several midpoints share a cell of the search, and the smallest magnitudes with them.
        float[] steep = [.. Enumerable.Range(0, 256).Select(i => MathF.Pow(2f, -30f * (255 - i) / 255))];
        foreach (var map in new[] { EightBitMap.DynamicSigned, EightBitMap.DynamicUnsigned, EightBitMap.LinearSigned, EightBitMap.LinearUnsigned, new EightBitMap("steep", steep) })
        {
            var edges = Enumerable.Range(0, 255).Select(i => (map.Values[i] + map.Values[i + 1]) / 2f)
                .SelectMany(m => new[] { m, MathF.BitIncrement(m), MathF.BitDecrement(m), -m, 1e-30f, -1e-30f, 0f, -0f }).Select(v => Math.Clamp(v, -1f, 1f)).ToList();
            // A one in each block, so that nothing is scaled.
            float[] values = [.. edges.Chunk(127).SelectMany(chunk => chunk.Append(1f).Concat(new float[127 - chunk.Length]))];
            AgainstReference(() =>
            {
                var (codes, absmax) = new BlockwiseCodec(map, 128).Encode(tensor(values));
                Assert.True(absmax.eq(1f).all().ToBoolean());
                return [codes];
            });
        }
    }

    [Fact]
    public void Int8_rows_equal_the_reference() => Gen.Select(Gen.Int[1, 40], Gen.Int[1, 150], Dtypes, Gen.Int[0, 1 << 20]).Sample(c =>
    {
        var (rows, columns, dtype, seed) = c;
        foreach (float threshold in new[] { 0f, 2.5f })
        {
            AgainstReference(() =>
            {
                var source = (Values(rows * columns, ScalarType.Float32, seed, 0) * 20).view(rows, columns).to(dtype);
                var (codes, absmax, outliers) = RowwiseInt8Codec.Encode(source, threshold);
                return outliers is null
                    ? [codes, absmax, RowwiseInt8Codec.Decode(codes, absmax, dtype)]
                    : [codes, absmax, outliers, RowwiseInt8Codec.Decode(codes, absmax, dtype)];
            });
        }
    }, iter: 60, threads: 1);

    [Fact]
    public void Large_tensors_are_split_over_threads_without_a_seam()
    {
        AgainstReference(() =>
        {
            var weight = Values(300_001, ScalarType.BFloat16, 7, 1);
            using var packed = new FourBitCodec(QuantType.Nf4, 64, true).Encode(weight);
            var (codes, absmax) = new BlockwiseCodec(EightBitMap.DynamicSigned).Encode(weight);
            var (rows, scales, _) = RowwiseInt8Codec.Encode(weight[TensorIndex.Slice(0, 299_700)].view(-1, 333), 0);
            return [packed.Codes.clone(), packed.Absmax.clone(), FourBitCodec.Decode(packed, ScalarType.BFloat16), codes, absmax, rows, scales];
        });
    }

    private static void AgainstReference(Func<Tensor[]> work)
    {
        using var scope = NewDisposeScope();
        Tensor[] expected;
        using (KernelSelection.Force(KernelLevel.Reference)) expected = work();
        foreach (var level in KernelSelection.Supported.Where(l => l != KernelLevel.Reference))
        {
            using var forced = KernelSelection.Force(level);
            var got = work();
            for (int i = 0; i < expected.Length; i++)
                Assert.True(QuantGolden.SameBytes(expected[i], got[i]), $"{level}: result {i} differs from the reference.");
        }
    }

    private static Tensor Values(int count, ScalarType dtype, int seed, int content)
    {
        var generator = new Generator((ulong)seed);
        var values = randn([count], generator: generator) * 0.05f;
        var choice = rand([count], generator: generator);
        values = content switch
        {
            1 => values.masked_fill(choice < 0.3, 0),
            2 => where(choice < 0.01, values * 1000, values),
            3 => values * 1e-39f,
            4 => where(choice < 0.5, -values.abs(), zeros_like(values)),
            _ => values,
        };
        return values.to(dtype);
    }
}
