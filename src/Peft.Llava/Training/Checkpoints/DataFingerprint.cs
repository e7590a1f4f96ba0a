using System.Security.Cryptography;
using System.Text;

namespace Peft.Llava;

/// <summary>What a checkpoint remembers of the samples: enough to tell other ones, and other ones from the same in another order.</summary>
/// <param name="Count">How many there are.</param>
/// <param name="Ordered">SHA-256 over the samples' own hashes in their order.</param>
/// <param name="Sorted">The same over the sorted hashes.</param>
internal sealed record DataFingerprint(int Count, string Ordered, string Sorted)
{
    public static DataFingerprint Of(ITrainingData data)
    {
        var hashes = new byte[data.Count][];
        for (int i = 0; i < data.Count; i++) hashes[i] = SHA256.HashData(Encoding.UTF8.GetBytes(data.ContentOf(i)));
        string ordered = Digest(hashes);
        Array.Sort(hashes, (a, b) => a.AsSpan().SequenceCompareTo(b));
        return new DataFingerprint(data.Count, ordered, Digest(hashes));
    }

    /// <summary>How the data of now differ from those of this fingerprint, as a clause; null if they are the same.</summary>
    public string? DifferenceTo(DataFingerprint now) => now == this ? null
        : now.Count != Count ? $"the data set has {now.Count} samples and had {Count}"
        : now.Sorted == Sorted ? "the data set has the same samples in another order"
        : "the data set's samples are others (ids, conversations, image names or sizes of image files)";

    private static string Digest(byte[][] hashes)
    {
        using var all = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (byte[] hash in hashes) all.AppendData(hash);
        return Convert.ToHexStringLower(all.GetHashAndReset());
    }
}
