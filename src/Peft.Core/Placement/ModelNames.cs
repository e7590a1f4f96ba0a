using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A model's modules and parameters by outer names.</summary>
internal sealed class ModelNames(nn.Module model)
{
    /// <summary>What PEFT puts before the path of every parameter of the base.</summary>
    public const string Prefix = "base_model.model.";

    private readonly IModuleNames? _names = model as IModuleNames;

    /// <summary>The outer path of the output head, or null.</summary>
    public string? OutputHead => (model as IAdapterTargets)?.OutputHead;

    /// <summary>The outer path of the input embedding, or null.</summary>
    public string? InputEmbedding => (model as IAdapterTargets)?.InputEmbedding;

    /// <summary>Whether a bare name among the target modules can mean this outer path.</summary>
    public bool IsReachedByName(string path) => (model as IAdapterTargets)?.IsReachedByName(path) ?? true;

    /// <summary>The outer path of a path in memory.</summary>
    public string Outer(string path) => _names?.ToExternal(path) ?? path;

    /// <summary>The outer name, relative to a module's outer path, of a name inside that module.</summary>
    public string OuterWithin(string outerPath, string name)
    {
        string whole = Outer($"{Inner(outerPath)}.{name}");
        return whole.StartsWith(outerPath + ".", StringComparison.Ordinal) ? whole[(outerPath.Length + 1)..] : name;
    }

    /// <summary>The path in memory of an outer path.</summary>
    public string Inner(string path) => _names?.ToInternal(path) ?? path;

    /// <summary>All modules by outer path; what is inside a module that carries adapters is left out.</summary>
    public IEnumerable<(string Path, nn.Module Module)> Modules() => Walk(model, "").Select(m => (Outer(m.Path), m.Module));

    /// <summary>The modules that carry adapters.</summary>
    public IEnumerable<IAdapterHost> Hosts() => Walk(model, "").Select(m => m.Module).OfType<IAdapterHost>();

    /// <summary>All parameters of the base, by PEFT's names without its prefix; a tensor shared by two modules comes once.</summary>
    public IEnumerable<(string Name, Parameter Parameter)> BaseParameters(bool keepShared = false)
        => Parameters(keepShared, _ => []);

    /// <summary>All parameters, base and adapters, by PEFT's names without its prefix.</summary>
    public IEnumerable<(string Name, Parameter Parameter)> AllParameters(bool keepShared = false)
        => Parameters(keepShared, host => InPeftOrder(host).Select(t => (t.MemoryName, t.Tensor)));

    // PEFT keeps a dictionary by adapter inside one for each kind of tensor: all A, then all B, …
    private static IEnumerable<AdapterTensor> InPeftOrder(IAdapterHost host)
        => host.AdapterNames.SelectMany(host.TensorsOf).GroupBy(t => t.DiskName).SelectMany(g => g);

    private IEnumerable<(string Name, Parameter Parameter)> Parameters(
        bool keepShared, Func<IAdapterHost, IEnumerable<(string, Parameter)>> adapters)
    {
        var seen = new HashSet<IntPtr>();
        foreach (var (name, parameter) in ParametersOf(model, "", adapters))
            if (seen.Add(parameter.Handle) || keepShared) yield return (name, parameter);
    }

    private IEnumerable<(string Name, Parameter Parameter)> ParametersOf(
        nn.Module module, string path, Func<IAdapterHost, IEnumerable<(string, Parameter)>> adapters)
    {
        if (module is IAdapterHost host)
        {
            foreach (var (name, parameter) in host.BaseParameters().Concat(adapters(host))) yield return ($"{host.ModulePath}.{name}", parameter);
            yield break;
        }
        foreach (var (name, parameter) in module.named_parameters(recurse: false)) yield return (Outer(path + name), parameter);
        foreach (var (name, child) in module.named_children())
            foreach (var item in ParametersOf(child, $"{path}{name}.", adapters)) yield return item;
    }

    private static IEnumerable<(string Path, nn.Module Module)> Walk(nn.Module module, string path)
    {
        foreach (var (name, child) in module.named_children())
        {
            yield return (path + name, child);
            if (child is IAdapterHost) continue;
            foreach (var item in Walk(child, $"{path}{name}.")) yield return item;
        }
    }
}
