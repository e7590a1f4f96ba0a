using System.Reflection;
using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>Casts single parameters of a model in place: the field (or property) that the module computes with, and the registry.</summary>
internal static class ParameterCasts
{
    private const BindingFlags Own = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;

    // TorchSharp lets a parameter be registered but not replaced. The exception is not reached with the TorchSharp that the tests run on: it guards against another one.
    private static readonly FieldInfo Registry =
        typeof(nn.Module).GetField("_internal_params", Own) ?? throw new NotSupportedException(
            "TorchSharp's nn.Module has no _internal_params; parameters cannot be replaced. Use the TorchSharp version these packages are built for.");

    /// <summary>Casts every parameter for which a dtype is given; one that two modules share is cast once and stays shared.</summary>
    public static IReadOnlyList<CastParameter> Cast(nn.Module model, Func<string, Parameter, ScalarType?> dtypeFor)
    {
        using var noGrad = no_grad();
        var done = new Dictionary<IntPtr, Parameter>();
        var replaced = new List<Parameter>();
        var list = new List<CastParameter>();
        foreach (var (path, module) in ModuleTree.Modules(model).Prepend((Path: "", Module: model)).ToList())
        {
            foreach (var (name, parameter) in module.named_parameters(recurse: false).ToList())
            {
                string full = path.Length == 0 ? name : $"{path}.{name}";
                if (done.TryGetValue(parameter.Handle, out var shared))
                {
                    Put(module, name, parameter, shared);
                    continue;
                }
                if (dtypeFor(full, parameter) is not { } dtype || dtype == parameter.dtype) continue;
                var cast = (Parameter)new Parameter(parameter.to(dtype), parameter.requires_grad).DetachFromDisposeScope();
                list.Add(new CastParameter(full, parameter.dtype, dtype, parameter.numel() * (cast.element_size() - parameter.element_size())));
                done[parameter.Handle] = cast;
                replaced.Add(parameter);
                Put(module, name, parameter, cast);
            }
        }
        foreach (var parameter in replaced) parameter.Dispose();
        return list;
    }

    private static void Put(nn.Module module, string name, Parameter old, Parameter cast)
    {
        for (var type = module.GetType(); type is not null && type != typeof(nn.Module); type = type.BaseType)
        {
            foreach (var field in type.GetFields(Own))
                if (ReferenceEquals(field.GetValue(module), old)) field.SetValue(module, cast);
        }
        var registry = (TorchSharp.Utils.OrderedDict<string, Parameter>)Registry.GetValue(module)!;
        registry[name] = cast;
    }
}
