using System.Collections;
using System.Reflection;
using System.Runtime.CompilerServices;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Finds modules by path and puts others in their place.</summary>
/// <remarks>
/// TorchSharp keeps a module twice: in the field (or list) that the parent's code calls, and in the parent's registry, which parameters, moves
/// and saving go through. <see cref="Replace"/> changes both or neither.
/// </remarks>
public static class ModuleTree
{
    private const BindingFlags Instance = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;

    private static readonly FieldInfo Registry =
        typeof(nn.Module).GetField("_internal_submodules", Instance)
        // Not reached with the TorchSharp that the tests run on: it guards against another one.
        ?? throw new NotSupportedException("This version of TorchSharp keeps no registry _internal_submodules in a module; use the version this package was built with.");

    /// <summary>All modules below a root with their paths in memory, parents first, each path once.</summary>
    /// <param name="root">The root, which has no path itself and is left out.</param>
    /// <returns>Path and module, in the order of registration.</returns>
    public static IEnumerable<(string Path, nn.Module Module)> Modules(nn.Module root)
    {
        ArgumentNullException.ThrowIfNull(root);
        foreach (var (name, child) in root.named_children())
        {
            yield return (name, child);
            foreach (var (path, module) in Modules(child)) yield return ($"{name}.{path}", module);
        }
    }

    /// <summary>The module at a path, or null.</summary>
    /// <param name="root">The root; the path "" is the root itself.</param>
    /// <param name="path">The path in memory.</param>
    /// <returns>The module, or null if there is none.</returns>
    public static nn.Module? Find(nn.Module root, string path)
    {
        ArgumentNullException.ThrowIfNull(root);
        ArgumentNullException.ThrowIfNull(path);
        var module = root;
        foreach (string name in path.Split('.', StringSplitOptions.RemoveEmptyEntries))
        {
            var next = module.named_children().Where(c => c.name == name).Select(c => c.module).FirstOrDefault();
            if (next is null) return null;
            module = next;
        }
        return module;
    }

    /// <summary>Puts a module in the place of another: the field or list slot, and the registry. The old module is not disposed.</summary>
    /// <param name="root">The root.</param>
    /// <param name="path">The path in memory.</param>
    /// <param name="replacement">The new module; it gets the old one's training mode.</param>
    /// <returns>The old module; the caller owns it now.</returns>
    /// <exception cref="ModuleReplacementException">There is no such module, or its field cannot hold the new one; nothing has changed.</exception>
    public static nn.Module Replace(nn.Module root, string path, nn.Module replacement)
    {
        ArgumentNullException.ThrowIfNull(replacement);
        var slot = SlotOf(root, path, replacement.GetType());
        slot.Put(replacement);
        var registry = (TorchSharp.Utils.OrderedDict<string, nn.Module>)Registry.GetValue(slot.Parent)!;
        registry[slot.Name] = replacement;
        if (replacement.training != slot.Old.training) replacement.train(slot.Old.training);
        return slot.Old;
    }

    /// <summary>Throws if <see cref="Replace"/> would; changes nothing.</summary>
    /// <param name="root">The root.</param>
    /// <param name="path">The path in memory.</param>
    /// <param name="replacementType">The type of the module that would be put there.</param>
    /// <exception cref="ModuleReplacementException">It would throw.</exception>
    public static void CheckReplaceable(nn.Module root, string path, Type replacementType) => SlotOf(root, path, replacementType);

    private static Slot SlotOf(nn.Module root, string path, Type type)
    {
        ArgumentNullException.ThrowIfNull(path);
        int dot = path.LastIndexOf('.');
        string name = path[(dot + 1)..];
        var parent = Find(root, dot < 0 ? "" : path[..dot]);
        var old = parent?.named_children().Where(c => c.name == name).Select(c => c.module).FirstOrDefault()
            ?? throw new ModuleReplacementException(path, $"there is no such module in {root.GetType().Name}.");
        string? refusal = null;
        for (var level = parent!.GetType(); level is not null && level != typeof(nn.Module); level = level.BaseType)
        {
            foreach (var field in level.GetFields(Instance))
            {
                var put = TryField(parent, field, name, old, type, ref refusal);
                if (put is not null) return new Slot(parent, name, old, put);
            }
        }
        throw new ModuleReplacementException(path, refusal
            ?? $"no field or list of {Name(parent.GetType())} holds this {Name(old.GetType())}, so its code would go on calling the old one; keep it in a field.");
    }

    private static Action<nn.Module>? TryField(object parent, FieldInfo field, string name, nn.Module old, Type type, ref string? refusal)
    {
        object? value = field.GetValue(parent);
        if (ReferenceEquals(value, old))
        {
            if (field.FieldType.IsAssignableFrom(type)) return module => field.SetValue(parent, module);
            refusal = $"field {Name(field.DeclaringType!)}.{field.Name} is {Name(field.FieldType)}, which cannot hold {Name(type)}; "
                + "declare it as Module<Tensor, Tensor>.";
        }
        else if (value is IList list)
        {
            int index = IndexOf(list, old, name);
            if (index < 0) return null;
            var element = value.GetType().IsArray ? value.GetType().GetElementType()! : value.GetType().GetGenericArguments().FirstOrDefault() ?? typeof(object);
            if (element.IsAssignableFrom(type)) return module => list[index] = module;
            refusal = $"the list {Name(field.DeclaringType!)}.{field.Name} holds {Name(element)}, which {Name(type)} is not; "
                + "declare its elements as Module<Tensor, Tensor>.";
        }
        else if (value is IDictionary map)
        {
            foreach (object key in map.Keys)
            {
                if (!ReferenceEquals(map[key], old)) continue;
                var element = value.GetType().GetGenericArguments().LastOrDefault() ?? typeof(object);
                if (element.IsAssignableFrom(type)) return module => map[key] = module;
            }
        }
        return null;
    }

    // A list may hold one module twice (shared layers): the slot whose number is the name goes first.
    private static int IndexOf(IList list, nn.Module old, string name)
    {
        if (int.TryParse(name, out int number) && number < list.Count && ReferenceEquals(list[number], old)) return number;
        for (int i = 0; i < list.Count; i++)
            if (ReferenceEquals(list[i], old)) return i;
        return -1;
    }

    private static string Name(Type type)
    {
        if (!type.IsGenericType) return type.Name;
        string name = type.Name[..type.Name.IndexOf('`', StringComparison.Ordinal)];
        return $"{name}<{string.Join(", ", type.GetGenericArguments().Select(Name))}>";
    }

    private sealed record Slot(nn.Module Parent, string Name, nn.Module Old, Action<nn.Module> Put);
}
