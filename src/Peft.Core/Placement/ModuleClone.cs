using System.Collections;
using System.Reflection;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Copies modules of any class. TorchSharp has no such thing: fields, lists and registries are copied level by level, child modules are copied
/// as well, parameters are copied or shared.
/// </summary>
/// <remarks>
/// A copy is never disposed itself, since it shares the native handle of its original; <see cref="DisposeParameters"/> frees what is its own.
/// </remarks>
internal static class ModuleClone
{
    private const BindingFlags Instance = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;

    private static readonly MethodInfo Shallow = typeof(object).GetMethod(nameof(MemberwiseClone), BindingFlags.Instance | BindingFlags.NonPublic)!;

    private static readonly string[] Registries = ["_internal_submodules", "_internal_buffers", "_internal_params"];

    /// <summary>A copy whose parameters are those of the original.</summary>
    /// <param name="module">The module.</param>
    public static nn.Module Sharing(nn.Module module) => Copy(module, "", p => p, b => b);

    /// <summary>A copy with parameters and buffers of its own.</summary>
    /// <param name="module">The module.</param>
    /// <param name="path">Its outer path, for messages.</param>
    /// <exception cref="UnsupportedTargetException">It holds something that cannot be copied or trained.</exception>
    public static nn.Module Owning(nn.Module module, string path)
    {
        using var noGrad = no_grad();
        if (ModuleTree.Modules(module).Select(m => m.Module).Prepend(module).FirstOrDefault(IsPacked) is { } packed)
            throw new UnsupportedTargetException(path, $"the weight of {packed.GetType().Name} is stored packed and cannot be trained in full; load this part unquantised.");
        return Copy(module, path, p =>
        {
            if (!is_floating_point(p))
                throw new UnsupportedTargetException(path, $"a parameter of {module.GetType().Name} is stored as {p.dtype} and cannot be trained in full; load this part unquantised.");
            return new Parameter(p.clone().DetachFromDisposeScope(), requires_grad: false);
        }, buffer => buffer.clone().DetachFromDisposeScope());
    }

    /// <summary>Whether a module is a layer whose weight is no parameter of its own, but packed.</summary>
    internal static bool IsPacked(nn.Module module)
        => module is FrozenLinear { StoredBytes: > 0 } && !module.named_parameters(recurse: false).Any(p => p.name == "weight");

    /// <summary>Frees the parameters and buffers of a copy made by <see cref="Owning"/>.</summary>
    /// <param name="copy">The copy; it is of no use afterwards.</param>
    public static void DisposeParameters(nn.Module copy)
    {
        foreach (var (_, parameter) in copy.named_parameters().ToList()) parameter.Dispose();
        foreach (var (_, buffer) in copy.named_buffers().ToList()) buffer.Dispose();
    }

    private static nn.Module Copy(nn.Module module, string path, Func<Parameter, Parameter> parameterFor, Func<Tensor, Tensor> bufferFor)
    {
        if (module is Embedding embedding) return CopyEmbedding(embedding, parameterFor);
        var copy = (nn.Module)Shallow.Invoke(module, null)!;
#pragma warning disable CA1816 // the copy must never free the native handle it shares
        GC.SuppressFinalize(copy);
#pragma warning restore CA1816
        var map = new Dictionary<object, object>(ReferenceEqualityComparer.Instance);
        foreach (var (_, child) in module.named_children()) map.TryAdd(child, Copy(child, path, parameterFor, bufferFor));
        foreach (var (_, parameter) in module.named_parameters(recurse: false)) map.TryAdd(parameter, parameterFor(parameter));
        var buffers = new Dictionary<object, object>(ReferenceEqualityComparer.Instance);
        foreach (var (_, buffer) in module.named_buffers(recurse: false)) buffers.TryAdd(buffer, bufferFor(buffer));
        RenewRegistries(copy, map, buffers);
        int placed = 0;
        for (var level = copy.GetType(); level is not null && level != typeof(nn.Module); level = level.BaseType)
        {
            foreach (var field in level.GetFields(Instance))
            {
                var value = field.GetValue(copy);
                if (value is null) continue;
                if (!buffers.TryGetValue(value, out object? renewed) && !TryRenew(value, map, out renewed, ref placed)) continue;
                field.SetValue(copy, renewed);
            }
        }
        if (placed < map.Count)
            throw new UnsupportedTargetException(path, $"{module.GetType().Name} keeps parameters or modules where they cannot be copied; keep them in fields or lists.");
        return copy;
    }

    // TorchSharp's Embedding lives in native code: its copy has to be made there.
    private static Embedding CopyEmbedding(Embedding embedding, Func<Parameter, Parameter> parameterFor)
    {
        var weight = parameterFor(embedding.weight!);
        var settings = NativeEmbedding.Of(embedding);
        var copy = nn.Embedding(weight.shape[0], weight.shape[1], settings.PaddingIndex, settings.MaxNorm, settings.NormType, settings.ScalesByFrequency, settings.IsSparse, dtype: weight.dtype);
        bool trained = weight.requires_grad;
        copy.weight = weight;
        copy.weight!.requires_grad = trained;
        return copy;
    }

    private static void RenewRegistries(nn.Module copy, Dictionary<object, object> map, Dictionary<object, object> buffers)
    {
        foreach (string name in Registries)
        {
            var field = typeof(nn.Module).GetField(name, Instance)!;
            object renewed = field.GetValue(copy) switch
            {
                TorchSharp.Utils.OrderedDict<string, nn.Module> modules => Renew(modules, map),
                TorchSharp.Utils.OrderedDict<string, Parameter> parameters => Renew(parameters, map),
                TorchSharp.Utils.OrderedDict<string, (Tensor, bool)> kept => Renew(kept, buffers),
                // Not reached with the TorchSharp that the tests run on: it guards against another one.
                _ => throw new NotSupportedException($"This version of TorchSharp keeps no registry {name} in a module; use the version this package was built with."),
            };
            field.SetValue(copy, renewed);
        }
    }

    private static TorchSharp.Utils.OrderedDict<string, (Tensor, bool)> Renew(TorchSharp.Utils.OrderedDict<string, (Tensor, bool)> registry, Dictionary<object, object> map)
    {
        var renewed = new TorchSharp.Utils.OrderedDict<string, (Tensor, bool)>();
        foreach (var (key, (buffer, persistent)) in (IEnumerable<(string, (Tensor, bool))>)registry)
            renewed.Add(key, (buffer is not null && map.TryGetValue(buffer, out object? other) ? (Tensor)other : buffer!, persistent));
        return renewed;
    }

    private static TorchSharp.Utils.OrderedDict<string, T> Renew<T>(TorchSharp.Utils.OrderedDict<string, T> registry, Dictionary<object, object> map)
    {
        var renewed = new TorchSharp.Utils.OrderedDict<string, T>();
        foreach (var (key, value) in (IEnumerable<(string, T)>)registry) renewed.Add(key, map.TryGetValue(value!, out object? other) ? (T)other : value);
        return renewed;
    }

    private static bool TryRenew(object value, Dictionary<object, object> map, out object? renewed, ref int placed)
    {
        if (map.TryGetValue(value, out renewed))
        {
            placed++;
            return true;
        }
        if (value is not IList list || value is Array { Rank: > 1 } || !list.Cast<object?>().Any(item => item is not null && map.ContainsKey(item))) return false;
        var copy = value is Array array ? (IList)array.Clone() : (IList)Activator.CreateInstance(value.GetType())!;
        for (int i = 0; i < list.Count; i++)
        {
            object? item = list[i] is { } old && map.TryGetValue(old, out object? other) ? other : list[i];
            if (item is not null && !ReferenceEquals(item, list[i])) placed++;
            if (value is Array) copy[i] = item;
            else copy.Add(item);
        }
        renewed = copy;
        return true;
    }
}
