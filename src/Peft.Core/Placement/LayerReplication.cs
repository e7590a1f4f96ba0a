using System.Collections;
using System.Reflection;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A stack of layers rebuilt from copies that share weights (PEFT's <c>layer_replication</c>), and the way back.</summary>
internal sealed class LayerReplication
{
    private readonly nn.Module _stack;
    private readonly List<nn.Module> _before;

    private LayerReplication(nn.Module stack, List<nn.Module> before)
    {
        _stack = stack;
        _before = before;
    }

    /// <summary>Rebuilds a model's stack.</summary>
    /// <param name="model">A model with a module list <c>layers</c>, <c>h</c> or <c>encoder.layer</c> below any number of <c>model</c>.</param>
    /// <param name="map">The ranges [start, end) of layers, in the order wanted.</param>
    /// <returns>The way back.</returns>
    /// <exception cref="InvalidLoraConfigException">There is no such list, or it is shorter than a range.</exception>
    public static LayerReplication Apply(nn.Module model, IReadOnlyList<(int Start, int End)> map)
    {
        var root = model;
        while (ModuleTree.Find(root, "model") is { } inner) root = inner;
        var stack = new[] { "layers", "h", "transformer.h", "encoder.layer" }.Select(p => ModuleTree.Find(root, p)).FirstOrDefault(m => m is not null && IsList(m))
            ?? throw new InvalidLoraConfigException(["layer_replication found no list of layers (layers, h or encoder.layer) in the model"]);
        var layers = stack.named_children().Select(c => c.module).ToList();
        foreach (var (start, end) in map)
            if (end > layers.Count) throw new InvalidLoraConfigException([$"layer_replication has the range [{start}, {end}), but there are {layers.Count} layers"]);
        var copies = map.SelectMany(range => layers[range.Start..range.End].Select(ModuleClone.Sharing)).ToList();
        Put(stack, copies);
        return new LayerReplication(stack, layers);
    }

    /// <summary>Puts the layers back that were there before.</summary>
    public void Undo() => Put(_stack, _before);

    private static bool IsList(nn.Module module) => module.GetType() is { IsGenericType: true } type && type.GetGenericTypeDefinition() == typeof(TorchSharp.Modules.ModuleList<>);

    private static void Put(nn.Module stack, List<nn.Module> layers)
    {
        var list = (IList)stack.GetType().GetField("_list", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(stack)!;
        list.Clear();
        foreach (var layer in layers) list.Add(layer);
        foreach (string name in stack.named_children().Select(c => c.name).ToList()) stack.register_module(name, null!);
        for (int i = 0; i < layers.Count; i++) stack.register_module($"{i}", layers[i]);
    }
}
