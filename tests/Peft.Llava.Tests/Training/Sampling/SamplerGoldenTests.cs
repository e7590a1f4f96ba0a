using System.Text.Json;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class SamplerGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Samplers => Goldens.Rows("training", c => File.Exists(c.PathOf("grouped.json")));

    public static IEnumerable<TheoryDataRow<string>> Seeds => Goldens.Rows("training", c => c.Json.TryGetProperty("order_rule", out _));

    [Theory, MemberData(nameof(Samplers)), Trait(Goldens.Trait, "training")]
    public void Orders_and_draws_equal_torch_and_llava(string folder)
    {
        var golden = new GoldenCase(folder);
        foreach (var row in Read(golden, "randperm.json"))
            Assert.Equal(Ints(row.GetProperty("randperm")), new TorchRandom(row.GetProperty("seed").GetInt64()).Permutation(row.GetProperty("n").GetInt32()));
        foreach (var row in Read(golden, "draws.json"))
        {
            var random = new TorchRandom(row.GetProperty("seed").GetInt64());
            foreach (var draw in row.GetProperty("int64_draws").EnumerateArray()) Assert.Equal(draw.GetInt64(), random.NextInt64());
        }
        foreach (var row in Read(golden, "chunks.json"))
        {
            var chunks = LengthGrouping.SplitEvenly(Ints(row.GetProperty("indices")), Ints(row.GetProperty("lengths")), row.GetProperty("num_chunks").GetInt32());
            Assert.Equal(row.GetProperty("chunks").EnumerateArray().Select(Ints), chunks.Select(c => c.ToArray()));
        }
        foreach (var row in Read(golden, "edge.json"))
            if (row.TryGetProperty("result", out var result))
                Assert.Equal(Ints(result), LengthGrouping.ByModality(Ints(row.GetProperty("modality_lengths")),
                    row.GetProperty("batch_size").GetInt32(), row.GetProperty("world_size").GetInt32(), new TorchRandom(row.GetProperty("seed").GetInt64())));

        var rows = Read(golden, "grouped.json");
        var sets = rows.Where(r => r.TryGetProperty("lengths", out _)).ToDictionary(r => r.GetProperty("n").GetInt32());
        foreach (var row in rows.Where(r => r.TryGetProperty("world_size", out _)))
        {
            var set = sets[row.GetProperty("n").GetInt32()];
            int[] lengths = Ints(set.GetProperty("lengths")), signed = Ints(set.GetProperty("modality_lengths"));
            int batch = row.GetProperty("batch_size").GetInt32(), world = row.GetProperty("world_size").GetInt32();
            long seed = row.GetProperty("seed").GetInt64();
            Assert.Equal(Ints(row.GetProperty("length_grouped")), LengthGrouping.ByLength(lengths, batch, world, new TorchRandom(seed)));
            Assert.Equal(Ints(row.GetProperty("modality_grouped")), LengthGrouping.ByModality(signed, batch, world, new TorchRandom(seed)));
            Assert.Equal(Ints(row.GetProperty("modality_grouped_generator")),
                LengthGrouping.ByModality(signed, batch, world, new TorchRandom(seed), new TorchRandom(seed + 1)));
            if (row.TryGetProperty("hf_length_grouped", out var hf))
                Assert.Equal(Ints(hf), LengthGrouping.ByLengthAsTransformers(lengths, batch, new TorchRandom(seed)));
        }
    }

    [Theory, MemberData(nameof(Seeds)), Trait(Goldens.Trait, "training")]
    public void The_order_follows_from_the_seed_alone(string folder)
    {
        var golden = new GoldenCase(folder);
        Assert.True(golden.Json.GetProperty("order_same_with_other_torch_seed_before_train").GetBoolean());
        Assert.Equal(1, golden.Json.GetProperty("order_rule").GetProperty("draws_before_first_epoch").GetInt32());
        Assert.Equal(1, golden.Json.GetProperty("order_rule").GetProperty("draws_between_epochs").GetInt32());
        var orders = golden.Json.GetProperty("orders");
        using var data = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(golden.AreaFolder, "common", "data", "conv.json")));
        string[] ids = [.. data.RootElement.EnumerateArray().Select(e => e.GetProperty("id").GetString()!)];
        string[] expected = [.. orders.GetProperty("ids").EnumerateArray().Select(e => e.GetString()!)];
        var order = new SampleOrder(SampleOrdering.Shuffled, ids.Length, orders.GetProperty("seed").GetInt64());
        var got = new List<string>();
        while (got.Count < expected.Length) got.AddRange(order.NextEpoch().Select(i => ids[i]));
        Assert.Equal(expected, got.Take(expected.Length));
    }

    private static List<JsonElement> Read(GoldenCase golden, string file)
        => [.. JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(file))).RootElement.EnumerateArray()];

    private static int[] Ints(JsonElement e) => [.. e.EnumerateArray().Select(x => x.GetInt32())];
}
