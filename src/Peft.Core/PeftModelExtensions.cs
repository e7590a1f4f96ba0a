using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Puts LoRA on any TorchSharp module.</summary>
public static class PeftModelExtensions
{
    /// <summary>The name an adapter has if none is given.</summary>
    public const string DefaultAdapter = "default";

    /// <summary>Freezes a model and puts a new LoRA adapter on it, which is active.</summary>
    /// <param name="model">The model; it stays the caller's and is used as before. Its adapted layers are replaced in place.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <param name="adapterName">The adapter's name.</param>
    /// <param name="options">How the adapter is made.</param>
    /// <returns>The handle of the adapters; disposing it restores the model.</returns>
    /// <exception cref="InvalidLoraConfigException">The settings cannot be.</exception>
    /// <exception cref="TargetNotFoundException">An entry of target_modules, of a pattern or of modules_to_save matches nothing.</exception>
    /// <exception cref="UnsupportedTargetException">A module is meant that cannot carry LoRA.</exception>
    /// <exception cref="ModuleReplacementException">A layer stands in a field that cannot hold another one.</exception>
    /// <exception cref="AdapterStateException">The model carries adapters already.</exception>
    public static PeftModel GetPeftModel(
        this nn.Module model, LoraConfig config, string adapterName = DefaultAdapter, AdapterOptions? options = null)
    {
        var peft = new PeftModel(model);
        try
        {
            peft.AddAdapter(adapterName, config, options);
            return peft;
        }
        catch
        {
            peft.Dispose();
            throw;
        }
    }

    /// <summary>
    /// The last parts of the names of all linear layers that LoRA is meant for, without the output head: LLaVA's <c>find_all_linear_names</c>.
    /// A model that is an <see cref="IAdapterTargets"/> with a part "language" gives those of that part only.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <returns>The names, sorted; assignable to <see cref="LoraConfig.TargetModules"/>.</returns>
    public static string[] FindAllLinearNames(this nn.Module model)
    {
        ArgumentNullException.ThrowIfNull(model);
        var names = new ModelNames(model);
        IReadOnlyList<string>? parts = null;
        (model as IAdapterTargets)?.AdapterGroups.TryGetValue("language", out parts);
        return [.. names.Modules()
            .Where(m => AdapterPlan.KindOf((m.Module as IAdapterHost)?.Original ?? m.Module) == TargetKind.Linear)
            .Select(m => m.Path)
            .Where(path => path != names.OutputHead && (parts is null || parts.Any(p => path == p || path.StartsWith(p + ".", StringComparison.Ordinal))))
            .Select(path => path[(path.LastIndexOf('.') + 1)..])
            .Where(name => name != "lm_head")
            .Distinct().Order(StringComparer.Ordinal)];
    }
}
