using System.Globalization;

namespace Peft.Llava;

/// <summary>
/// Reads the argument list of LLaVA's <c>train.py</c>, name for name. A flag that can't be honoured is refused with a sentence that says what
/// to use, an unknown one with the nearest name; what changes nothing here is named in <see cref="LlavaRunArguments.Notes"/>.
/// </summary>
public static class LlavaCommandLine
{
    /// <summary>Reads an argument list, in the forms of transformers' parser: <c>--flag value</c>, <c>--flag=value</c>, <c>--flag</c> for true,
    /// <c>--no_flag</c> for a flag that is true by default.</summary>
    /// <param name="arguments">The list, without the program's name.</param>
    /// <exception cref="CommandLineException">All problems of the list.</exception>
    public static LlavaArguments Parse(IReadOnlyList<string> arguments)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        var problems = new List<string>();
        var state = new FlagState();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (int i = 0; i < arguments.Count; i++)
        {
            string argument = arguments[i];
            if (!argument.StartsWith("--", StringComparison.Ordinal) || argument.Length == 2)
            {
                problems.Add($"'{argument}' belongs to no flag; flags start with -- and take one value");
                continue;
            }
            int equals = argument.IndexOf('=', StringComparison.Ordinal);
            string name = (equals < 0 ? argument[2..] : argument[2..equals]).Replace('-', '_');
            string? value = equals < 0 ? null : argument[(equals + 1)..];
            if (value is null && i + 1 < arguments.Count && !IsFlag(arguments[i + 1])) value = arguments[++i];
            if (LlavaFlags.TakesList(name))
                while (value is not null && i + 1 < arguments.Count && !IsFlag(arguments[i + 1])) value += " " + arguments[++i];
            if (!seen.Add(name)) problems.Add($"--{name} is given twice");
            Read(name, value, state, problems);
        }
        var result = state.ToArguments(problems);
        if (problems.Count > 0) throw new CommandLineException(problems);
        return result;
    }

    private static bool IsFlag(string argument)
        => argument.StartsWith("--", StringComparison.Ordinal) && argument.Length > 2
            && !double.TryParse(argument, NumberStyles.Float, CultureInfo.InvariantCulture, out _);

    private static void Read(string name, string? value, FlagState state, List<string> problems)
    {
        if (!LlavaFlags.Known.TryGetValue(name, out var flag))
        {
            if (name.StartsWith("no_", StringComparison.Ordinal) && value is null
                && LlavaFlags.Known.TryGetValue(name[3..], out flag) && flag.TakesBoolean)
            {
                value = "False";
            }
            else
            {
                problems.Add(LlavaFlags.Refused.TryGetValue(name, out string? sentence)
                    ? $"--{name}{(value is null ? "" : $" {value}")} can't be honoured: {sentence}"
                    : $"there is no flag --{name}; the nearest is --{NearestText.Find(name, LlavaFlags.Known.Keys.Concat(LlavaFlags.Refused.Keys))}");
                return;
            }
        }
        if (value is null && flag!.TakesBoolean) value = "True";
        if (value is null)
        {
            problems.Add($"--{name} needs a value");
            return;
        }
        if (flag!.Apply(state, value) is { } problem) problems.Add($"--{name} {value}: {problem}");
        else state.Notes.TryAdd(name, new FlagNote(name, FlagOutcome.Taken, value));
    }
}
