using System.IO.Compression;
using Peft.Core;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Compares <c>optimizer.pt</c>, <c>scheduler.pt</c> and <c>rng_state.pth</c> of a checkpoint with those that transformers' Trainer wrote at the same step.</summary>
internal static class TrainerFilesComparison
{
    public static void Compare(string recorded, string own)
    {
        CompareOptimizer(Path.Combine(recorded, "optimizer.pt"), Path.Combine(own, "optimizer.pt"));
        // Rates are the same arithmetic: the pickle is that of the peer, byte for byte.
        Assert.Equal(Record(recorded, "scheduler.pt", "data.pkl"), Record(own, "scheduler.pt", "data.pkl"));
        CompareRandom(recorded, own);
    }

    private static void CompareOptimizer(string recorded, string own)
    {
        using var scope = NewDisposeScope();
        var expected = (PickleDictionary)PickleFile.ReadObject(recorded)!;
        var got = (PickleDictionary)PickleFile.ReadObject(own)!;
        Assert.Equal(["state", "param_groups"], got.Keys);
        var groups = ((IReadOnlyList<object?>)expected["param_groups"]!).Zip((IReadOnlyList<object?>)got["param_groups"]!).ToList();
        Assert.Equal(((IReadOnlyList<object?>)expected["param_groups"]!).Count, groups.Count);
        foreach (var (e, g) in groups.Select(p => ((PickleDictionary)p.First!, (PickleDictionary)p.Second!)))
        {
            Assert.Equal(e.Keys, g.Keys);
            foreach (var (key, value) in e) Assert.Equal(value, g[key]);
        }
        var states = (PickleDictionary)expected["state"]!;
        var ours = (PickleDictionary)got["state"]!;
        Assert.Equal(states.Keys, ours.Keys);
        foreach (var (index, value) in states)
        {
            var e = (PickleDictionary)value!;
            var g = (PickleDictionary)ours[index]!;
            Assert.Equal(e.Keys, g.Keys);
            foreach (var (kind, tensor) in e)
            {
                var (a, b) = ((Tensor)tensor!, (Tensor)g[kind]!);
                Assert.Equal((a.dtype, string.Join(',', a.shape)), (b.dtype, string.Join(',', b.shape)));
                double size = a.norm().ToDouble(), off = (a - b).norm().ToDouble();
                Assert.True(off <= 1e-3 * size + 1e-12, $"{kind} of parameter {index}: the difference has norm {off:G4}, the tensor {size:G4}.");
            }
        }
    }

    private static void CompareRandom(string recorded, string own)
    {
        var state = (PickleDictionary)PickleFile.ReadObject(Path.Combine(own, "rng_state.pth"))!;
        using var cpu = (Tensor)state["cpu"]!;
        Assert.Equal(Record(recorded, "rng_state.pth", "data/0"), cpu.data<byte>().ToArray());
        // The pickles are the same up to numpy's words: an array there, plain numbers here.
        byte[] expected = Record(recorded, "rng_state.pth", "data.pkl"), got = Record(own, "rng_state.pth", "data.pkl");
        int numpy = expected.AsSpan().IndexOf("numpy"u8);
        Assert.Equal(expected[..numpy], got[..numpy]);
        var tuple = (PickleTuple)state["numpy"]!;
        Assert.Equal(["MT19937", 624L, 0L, 0.0], [tuple[0], tuple[2], tuple[3], tuple[4]]);
        Assert.Equal(NumpyWords(expected), ((PickleTuple)tuple[1]!).Select(w => (uint)(long)w!));
    }

    /// <summary>The words of numpy's array: a text of Latin-1 characters, each a byte, after the call that encodes it.</summary>
    private static uint[] NumpyWords(byte[] pickle)
    {
        ReadOnlySpan<byte> before = [0x89, (byte)'h', 9, (byte)'X'];
        int at = pickle.AsSpan().IndexOf(before) + before.Length;
        int length = BitConverter.ToInt32(pickle, at);
        byte[] bytes = System.Text.Encoding.Latin1.GetBytes(System.Text.Encoding.UTF8.GetString(pickle, at + 4, length));
        return [.. Enumerable.Range(0, 624).Select(i => BitConverter.ToUInt32(bytes, 4 * i))];
    }

    private static byte[] Record(string folder, string file, string name)
    {
        using var zip = ZipFile.OpenRead(Path.Combine(folder, file));
        using var stream = zip.Entries.Single(e => e.FullName.EndsWith("/" + name, StringComparison.Ordinal)).Open();
        using var copy = new MemoryStream();
        stream.CopyTo(copy);
        return copy.ToArray();
    }
}
