using System.Security.Cryptography;
using System.Text.Json;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Images;

/// <summary>Reading pictures out of the recorded cases, and comparing with them.</summary>
internal static class ImageGoldens
{
    /// <summary>A uint8 tensor [H, W, 3] of a case's file as a picture.</summary>
    public static RgbImage Picture(GoldenCase golden, string file, string tensor)
    {
        using var reader = golden.Tensors(golden.Json.GetProperty(file).GetString()!);
        using var t = reader.Load(tensor);
        return new RgbImage((int)t.shape[1], (int)t.shape[0], t.data<byte>().ToArray());
    }

    /// <summary>The decoded picture that a case names as its input.</summary>
    public static RgbImage Input(GoldenCase golden)
    {
        var input = golden.Json.GetProperty("input");
        var other = new GoldenCase(Path.Combine(golden.AreaFolder, input.GetProperty("case").GetString()!));
        return Picture(other, "expected", input.GetProperty("tensor").GetString()!);
    }

    /// <summary>The bytes of a uint8 tensor of a case, and its shape.</summary>
    public static (byte[] Bytes, long[] Shape) Bytes(GoldenCase golden, string tensor)
    {
        using var reader = golden.Tensors(golden.Json.GetProperty("expected").GetString()!);
        using var t = reader.Load(tensor);
        return (t.data<byte>().ToArray(), t.shape);
    }

    /// <summary>Every n-th row of a picture.</summary>
    public static byte[] EveryRow(RgbImage image, int step)
        => [.. Enumerable.Range(0, (image.Height + step - 1) / step).SelectMany(i => image.Row(i * step).ToArray())];

    /// <summary>SHA-256 as the cases write it.</summary>
    public static string Sha(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    /// <summary>Equal bytes, or a message that says where and how far off.</summary>
    public static void AssertBytes(ReadOnlySpan<byte> expected, ReadOnlySpan<byte> got, string what)
    {
        Assert.True(expected.Length == got.Length, $"{what}: expected {expected.Length} bytes, got {got.Length}.");
        int first = expected.CommonPrefixLength(got);
        if (first == got.Length) return;
        int worst = 0, count = 0;
        for (int i = 0; i < got.Length; i++)
        {
            int d = Math.Abs(expected[i] - got[i]);
            if (d > 0) count++;
            worst = Math.Max(worst, d);
        }
        Assert.Fail($"{what}: {count} of {got.Length} bytes differ, by at most {worst}; the first at {first}: expected {expected[first]}, got {got[first]}.");
    }

    /// <summary>The numbers of a JSON array.</summary>
    public static double[] Numbers(JsonElement array) => [.. array.EnumerateArray().Select(v => v.GetDouble())];
}
