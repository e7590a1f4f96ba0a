using System.Globalization;
using System.Text.RegularExpressions;

namespace Peft.Core;

/// <summary>Decides which module paths an adapter's settings mean, by PEFT's rules.</summary>
internal sealed class TargetMatcher
{
    private static readonly Regex FirstNumber = PythonPattern.FromStart(@".*?\.[^.]*\.(\d+)\.");

    private readonly LoraConfig _config;
    private readonly Regex? _target;
    private readonly Regex? _exclude;
    private readonly Regex[] _modulesToSave;
    private readonly Regex[] _layers;
    private readonly (string Key, Regex Pattern)[] _ranks;
    private readonly (string Key, Regex Pattern)[] _alphas;

    public TargetMatcher(LoraConfig config)
    {
        _config = config;
        _target = config.TargetModules is { Pattern: { } target, IsAllLinear: false } ? PythonPattern.Whole(target) : null;
        _exclude = config.ExcludeModules?.Pattern is { } exclude ? PythonPattern.Whole(exclude) : null;
        _modulesToSave = [.. (config.ModulesToSave ?? []).Select(m => PythonPattern.FromStart($@"(^|.*\.){m}($|\..*)"))];
        _layers = [.. (config.LayersPattern ?? []).Select(p => PythonPattern.FromStart($@".*?\.{p}\.(\d+)\."))];
        _ranks = Patterns(config.RankPattern.Keys);
        _alphas = Patterns(config.AlphaPattern.Keys);
    }

    /// <summary>Keys of rank_pattern and alpha_pattern that have matched nothing so far.</summary>
    public HashSet<string> UnusedKeys { get; } = [];

    /// <summary>Entries of target_modules that have matched nothing so far.</summary>
    public HashSet<string> UnusedTargets { get; } = [];

    /// <summary>Starts the account of what matches nothing.</summary>
    public void StartAccount()
    {
        UnusedTargets.UnionWith(_config.TargetModules ?? Enumerable.Empty<string>());
        UnusedKeys.UnionWith(_config.RankPattern.Keys.Select(k => $"rank_pattern['{k}']"));
        UnusedKeys.UnionWith(_config.AlphaPattern.Keys.Select(k => $"alpha_pattern['{k}']"));
    }

    /// <summary>Whether a path is meant.</summary>
    /// <param name="path">The outer path.</param>
    /// <param name="isLinear">Whether the module is a linear layer that is not the output head.</param>
    public bool Matches(string path, bool isLinear)
    {
        if (IsExcluded(path)) return false;
        if (_config.TargetModules is not { } targets) return false;
        if (targets.IsAllLinear) return isLinear;
        if (_target is not null) return _target.IsMatch(path);
        bool meant = false;
        foreach (string entry in targets)
        {
            bool exact = path == entry;
            if (!exact && !(path.EndsWith(entry, StringComparison.Ordinal) && path.Length > entry.Length && path[^(entry.Length + 1)] == '.')) continue;
            if (!exact && !IsLayerMeant(path)) continue;
            UnusedTargets.Remove(entry);
            meant = true;
        }
        return meant;
    }

    /// <summary>Whether a path is excluded or inside a module to save.</summary>
    public bool IsExcluded(string path)
    {
        bool excluded = _exclude is not null ? _exclude.IsMatch(path)
            : _config.ExcludeModules is { } names && names.Any(n => path == n || path.EndsWith("." + n, StringComparison.Ordinal));
        return excluded || _modulesToSave.Any(m => m.IsMatch(path));
    }

    /// <summary>Whether a path ends in one of <see cref="LoraConfig.ModulesToSave"/>.</summary>
    public string? ModuleToSave(string path)
        => (_config.ModulesToSave ?? []).FirstOrDefault(m => path.EndsWith(m, StringComparison.Ordinal) && (path.Length == m.Length || path[^(m.Length + 1)] == '.'));

    /// <summary>The rank of a layer.</summary>
    public int RankOf(string path) => KeyFor(_ranks, "rank_pattern", path) is { } key ? _config.RankPattern[key] : _config.Rank;

    /// <summary>The alpha of a layer.</summary>
    public double AlphaOf(string path) => KeyFor(_alphas, "alpha_pattern", path) is { } key ? _config.AlphaPattern[key] : _config.Alpha;

    /// <summary>Throws if the keys, sorted as a file has them, would give a layer another rank or alpha.</summary>
    /// <exception cref="PatternOrderException">They would.</exception>
    public void CheckSortedOrder(string path)
    {
        if (SortedFirst(_ranks, path) is { } rank && _config.RankPattern[rank] != RankOf(path)) throw new PatternOrderException(path, "rank_pattern");
        if (SortedFirst(_alphas, path) is { } alpha && _config.AlphaPattern[alpha] != AlphaOf(path)) throw new PatternOrderException(path, "alpha_pattern");
    }

    private static string? SortedFirst((string Key, Regex Pattern)[] patterns, string path)
        => patterns.Where(p => p.Pattern.IsMatch(path)).Select(p => p.Key).Order(StringComparer.Ordinal).FirstOrDefault();

    private static (string, Regex)[] Patterns(IEnumerable<string> keys) => [.. keys.Select(k => (k, PythonPattern.FromStart($@"(.*\.)?({k})$")))];

    private string? KeyFor((string Key, Regex Pattern)[] patterns, string field, string path)
    {
        string? first = null;
        foreach (var (key, pattern) in patterns)
        {
            if (!pattern.IsMatch(path)) continue;
            UnusedKeys.Remove($"{field}['{key}']");
            first ??= key;
        }
        return first;
    }

    private bool IsLayerMeant(string path)
    {
        if (_config.LayersToTransform is not { Count: > 0 } numbers) return true;
        var match = _layers.Length == 0 ? FirstNumber.Match(path) : _layers.Select(l => l.Match(path)).FirstOrDefault(m => m.Success);
        return match is { Success: true }
            && int.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && numbers.Contains(number);
    }
}
