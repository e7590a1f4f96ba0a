using System.Text;
using System.Text.Json;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Whether the processes of a group are about to do the same training.</summary>
internal static class GroupAgreement
{
    /// <summary>Compares settings over all processes; every process finds the same differences, so that nobody waits for one that has ended.</summary>
    /// <param name="group">The processes; all of them call this.</param>
    /// <param name="own">This process's settings by name.</param>
    /// <returns>All differences from the first process: one sentence each.</returns>
    public static IReadOnlyList<string> Problems(IProcessGroup group, IReadOnlyDictionary<string, string> own)
    {
        if (group.WorldSize == 1) return [];
        var all = Gather(group, JsonSerializer.SerializeToUtf8Bytes(own)).Select(text => JsonSerializer.Deserialize<Dictionary<string, string>>(text)!).ToList();
        var problems = new List<string>();
        foreach (var (name, first) in all[0])
            for (int rank = 1; rank < all.Count; rank++)
                if (all[rank].GetValueOrDefault(name, "not there") is var other && other != first)
                    problems.Add($"{name} is {other} in process {rank} and {first} in process 0; give all processes the same options and samples, and resume all of them from the same checkpoint or none");
        return problems;
    }

    /// <summary>Every process's text, by rank.</summary>
    private static List<string> Gather(IProcessGroup group, byte[] own)
    {
        using var length = tensor([(long)own.Length]);
        long[] lengths = [.. Collect<long>(group, length).Select(l => l[0])];
        using var padded = tensor([.. own, .. new byte[lengths.Max() - own.Length]], ScalarType.Byte);
        return [.. Collect<byte>(group, padded).Select((text, rank) => Encoding.UTF8.GetString(text.AsSpan(0, (int)lengths[rank])))];
    }

    private static List<T[]> Collect<T>(IProcessGroup group, Tensor own)
        where T : unmanaged
    {
        var values = new List<T[]>();
        foreach (var one in group.AllGather(own))
            using (one) values.Add(one.data<T>().ToArray());
        return values;
    }
}
