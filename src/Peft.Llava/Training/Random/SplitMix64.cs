namespace Peft.Llava;

/// <summary>The finaliser of SplitMix64 (Steele, Lea and Flood 2014): neighbouring numbers become ones that have nothing to do with each other.</summary>
internal static class SplitMix64
{
    /// <summary>What the generator adds to its state for each draw.</summary>
    public const ulong Gamma = 0x9e3779b97f4a7c15;

    /// <summary>Mixes the bits of a number; each number has its own result.</summary>
    public static ulong Finalise(ulong x)
    {
        unchecked
        {
            x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
            x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
            return x ^ (x >> 31);
        }
    }
}
