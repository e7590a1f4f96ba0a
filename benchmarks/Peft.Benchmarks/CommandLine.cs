using Peft.Core;

namespace Peft.Benchmarks;

/// <summary>The options of the program; one it does not know is refused.</summary>
internal sealed class CommandLine
{
    private static readonly (string Name, string? Value, string Text)[] Known =
    [
        ("scenario", "NAME", "what is measured (lora_bf16)"),
        ("all", null, "every scenario, each in a process of its own"),
        ("size", "NAME", "the model, of sizes.json (medium)"),
        ("batch", "N", "samples of a step (2; 1 at wide, medium1600 and medium3136)"),
        ("steps", "N", "timed steps or repeats, after one of warm-up (4)"),
        ("threads", "N", "threads of an operation (2)"),
        ("clock", "wall|cpu", "cpu: processor time of the calling thread, for one thread on a busy machine (wall)"),
        ("checkpoints", "FOLDER", "where the random checkpoints are made once (the system's temporary folder)"),
        ("out", "FOLDER", "writes a JSON file per scenario there"),
        ("help", null, "this text"),
    ];

    private readonly Dictionary<string, string> _values = [];

    private CommandLine()
    {
    }

    /// <summary>What is wrong with the arguments; null if nothing is.</summary>
    public string? Problem { get; private init; }

    /// <summary>Reads the arguments.</summary>
    public static CommandLine Parse(IReadOnlyList<string> args)
    {
        var line = new CommandLine();
        for (int i = 0; i < args.Count; i++)
        {
            string argument = args[i], name = argument is "-h" or "-?" ? "help" : argument.StartsWith("--", StringComparison.Ordinal) ? argument[2..] : "";
            var option = Known.FirstOrDefault(o => o.Name == name);
            if (option.Name is null) return new CommandLine { Problem = Unknown("option", argument, Known.Select(o => "--" + o.Name)) };
            if (option.Value is null) line._values[name] = "";
            else if (i + 1 < args.Count && !args[i + 1].StartsWith("--", StringComparison.Ordinal)) line._values[name] = args[++i];
            else return new CommandLine { Problem = $"{argument} wants a value: {argument} {option.Value}." };
        }
        return line;
    }

    /// <summary>Whether an option was given.</summary>
    public bool Has(string name) => _values.ContainsKey(name);

    /// <summary>An option's value, or what stands for it.</summary>
    public string Text(string name, string fallback) => _values.GetValueOrDefault(name, fallback);

    /// <summary>An option's number, or what stands for it.</summary>
    /// <exception cref="ArgumentException">It is no number above 0.</exception>
    public int Number(string name, int fallback)
        => !_values.TryGetValue(name, out string? text) ? fallback : int.TryParse(text, out int number) && number > 0 ? number
            : throw new ArgumentException($"--{name} wants a number above 0, not '{text}'.");

    /// <summary>A name that is none of those there are, with the nearest one.</summary>
    public static string Unknown(string kind, string name, IEnumerable<string> names)
    {
        string[] all = [.. names];
        return $"There is no {kind} '{name}'. {(NearestName.Find(name, all) is { } near ? $"Did you mean {near}? " : "")}There are: {string.Join(", ", all)}.";
    }

    /// <summary>The text of --help.</summary>
    public static string Help(IEnumerable<string> scenarios, IEnumerable<string> sizes)
        => "Peft.Benchmarks [options]\n" + string.Concat(Known.Select(o => $"  {$"--{o.Name} {o.Value}",-22}{o.Text}\n"))
            + $"scenarios: {string.Join(", ", scenarios)}\nsizes: {string.Join(", ", sizes)}\n";
}
