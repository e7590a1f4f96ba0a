using System.Text.RegularExpressions;

namespace Peft.Llava;

/// <summary>Names on the Hugging Face hub that were given where a folder belongs.</summary>
internal static partial class HubName
{
    /// <summary>What to do where a folder is missing: for a name of the hub's form with the command that downloads it.</summary>
    /// <param name="name">What was given.</param>
    /// <returns>A whole sentence.</returns>
    public static string NextStep(string name) => Form().IsMatch(name)
        ? $"It has the form of a name on the Hugging Face hub, from which nothing is downloaded here: run `hf download {name} --local-dir {name[(name.IndexOf('/', StringComparison.Ordinal) + 1)..]}` and give that folder."
        : $"Looked for {Path.GetFullPath(name)}; give the folder that holds config.json and the weights.";

    [GeneratedRegex(@"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
    private static partial Regex Form();
}
