using System.Reflection;
using System.Runtime.InteropServices;
using Peft.Llava;

namespace Peft.Benchmarks;

/// <summary>What ran.</summary>
internal static class Versions
{
    /// <summary>Library, TorchSharp and runtime.</summary>
    public static IReadOnlyDictionary<string, string> All { get; } = new Dictionary<string, string>
    {
        ["Peft.Llava"] = Of(typeof(LlavaModel).Assembly),
        ["TorchSharp"] = Of(typeof(TorchSharp.torch).Assembly),
        ["runtime"] = RuntimeInformation.FrameworkDescription,
    };

    private static string Of(Assembly assembly)
        => assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "?";
}
