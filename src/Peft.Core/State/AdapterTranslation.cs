using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>An adapter whose file has the module names of another version of its model: the same adapter under the present names.</summary>
internal static class AdapterTranslation
{
    private static readonly string[] Endings = [".lora_A", ".lora_B", ".lora_embedding_A", ".lora_embedding_B"];

    /// <summary>Translates settings and tensors, where the model says that it knows the names.</summary>
    /// <param name="model">The model.</param>
    /// <param name="config">The settings as they were read.</param>
    /// <param name="reader">The tensors as they are named in the file.</param>
    /// <returns>The settings and a reader under the present names; those given where nothing is to be done. The reader given stays the caller's.</returns>
    public static (LoraConfig Config, ITensorReader Reader) Of(nn.Module model, LoraConfig config, ITensorReader reader)
    {
        var paths = reader.Entries.Keys.Where(HasPrefix).ToDictionary(key => key, key => key[ModelNames.Prefix.Length..], StringComparer.Ordinal);
        if ((model as IModuleNames)?.TranslationOf([.. paths.Values]) is not { } translate) return (config, reader);
        var names = reader.Entries.Keys.ToDictionary(key => paths.TryGetValue(key, out string? path) ? ModelNames.Prefix + translate(path) : key, key => key, StringComparer.Ordinal);
        return (Settings(config, [.. paths.Values], translate), new Renamed(reader, names));
    }

    private static bool HasPrefix(string key) => key.StartsWith(ModelNames.Prefix, StringComparison.Ordinal);

    // Patterns and paths are those of the other names: what they mean there is taken from the file and told layer by layer. Bare names mean the same.
    private static LoraConfig Settings(LoraConfig config, IReadOnlyList<string> names, Func<string, string> translate)
    {
        var layers = names.Select(n => (Name: n, End: Endings.Select(e => n.IndexOf(e, StringComparison.Ordinal)).FirstOrDefault(i => i >= 0, -1)))
            .Where(n => n.End >= 0).Select(n => n.Name[..n.End]).Distinct().ToList();
        var matcher = new TargetMatcher(config);
        bool plain = config.TargetModules is { Pattern: null } list && !list.Any(IsPath) && config.ExcludeModules is null;
        return config with
        {
            TargetModules = plain || config.TargetModules is { IsAllLinear: true } ? config.TargetModules : TargetModules.Names([.. layers.Select(translate)]),
            ExcludeModules = plain || config.TargetModules is { IsAllLinear: true } ? Translated(config.ExcludeModules, translate) : null,
            LayersToTransform = plain ? config.LayersToTransform : null,
            LayersPattern = plain ? config.LayersPattern : null,
            ModulesToSave = config.ModulesToSave is { } saved ? [.. saved.Select(m => IsPath(m) ? translate(m) : m)] : null,
            RankPattern = PerLayer(config.RankPattern, layers, matcher.RankOf, config.Rank, translate),
            AlphaPattern = PerLayer(config.AlphaPattern, layers, matcher.AlphaOf, config.Alpha, translate),
            TrainableTokens = config.TrainableTokens?.ToDictionary(t => IsPath(t.Key) ? translate(t.Key) : t.Key, t => t.Value),
            TargetParameters = config.TargetParameters is { } parameters ? [.. parameters.Select(p => IsPath(p) ? translate(p) : p)] : null,
        };
    }

    private static bool IsPath(string name) => name.Contains('.', StringComparison.Ordinal);

    private static TargetModules? Translated(TargetModules? modules, Func<string, string> translate)
        => modules is { Pattern: null } ? TargetModules.Names([.. modules.Select(m => IsPath(m) ? translate(m) : m)]) : modules;

    private static OrderedDictionary<string, T> PerLayer<T>(
        IReadOnlyDictionary<string, T> pattern, List<string> layers, Func<string, T> valueOf, T usual, Func<string, string> translate)
        => pattern.Count == 0 ? [] : new(layers.Select(l => KeyValuePair.Create(translate(l), valueOf(l))).Where(v => !Equals(v.Value, usual)));

    private sealed class Renamed(ITensorReader inner, Dictionary<string, string> names) : ITensorReader
    {
        public string Source => inner.Source;

        public IReadOnlyDictionary<string, TensorEntry> Entries { get; }
            = names.ToDictionary(n => n.Key, n => inner.Entries[n.Value] with { Name = n.Key }, StringComparer.Ordinal);

        public Tensor Load(string name) => inner.Load(names[name]);

        public Tensor Map(string name) => inner.Map(names[name]);

        // What it reads from belongs to another.
        public void Dispose()
        {
        }
    }
}
