using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class SampledFingerprintTests
{
    [Fact]
    public void It_tells_names_shapes_dtypes_and_sampled_values_apart_and_not_the_order()
    {
        using var scope = NewDisposeScope();
        var a = arange(5000).to(ScalarType.Float32);
        var b = ones(3, 7);
        string whole = Of(("a", a), ("b", b));
        Assert.Equal(whole, Of(("b", b), ("a", a)));
        foreach (string other in new[]
        {
            Of(("a", b), ("b", a)), Of(("a", a.view(50, 100)), ("b", b)), Of(("a", a.to(ScalarType.BFloat16)), ("b", b)), Of(("a", a)), Of(("a", a), ("b", b * 2)), Of(("a", a + 1), ("b", b)),
        }) Assert.NotEqual(whole, other);
    }

    [Fact]
    public void Of_a_large_tensor_beginning_middle_and_end_count_and_of_a_small_one_all()
    {
        using var scope = NewDisposeScope();
        const int Count = 100_003;     // float32: 1024 elements a piece
        string whole = Of(("a", zeros(Count)));
        foreach (int seen in new[] { 0, 1023, (Count - 1024) / 2, (Count - 1024) / 2 + 1023, Count - 1024, Count - 1 }) Assert.NotEqual(whole, Of(("a", With(Count, seen))));
        foreach (int unseen in new[] { 1024, Count / 4, Count - 1025 }) Assert.Equal(whole, Of(("a", With(Count, unseen))));
        int small = SampledFingerprint.SampledBytes / 4;
        Assert.NotEqual(Of(("a", zeros(small))), Of(("a", With(small, small / 3))));
    }

    private static string Of(params (string Name, Tensor Tensor)[] tensors)
    {
        using var fingerprint = new SampledFingerprint();
        foreach (var (name, tensor) in tensors) fingerprint.Add(name, tensor);
        return fingerprint.Digest();
    }

    private static Tensor With(int count, int at)
    {
        var tensor = zeros(count);
        tensor[at] = 1;
        return tensor;
    }
}
