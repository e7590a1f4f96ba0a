using System.Reflection;
using Peft.Core;

namespace Peft.Boundary.Tests;

/// <summary>The three assemblies that are packed.</summary>
internal static class Packages
{
    public static Assembly Core { get; } = typeof(PeftException).Assembly;

    public static Assembly Quantization { get; } = Assembly.Load("Peft.Quantization");

    public static Assembly Llava { get; } = Assembly.Load("Peft.Llava");

    public static IReadOnlyList<Assembly> All { get; } = [Core, Quantization, Llava];
}
