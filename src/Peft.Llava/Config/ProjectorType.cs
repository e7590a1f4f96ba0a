using System.Text.RegularExpressions;

namespace Peft.Llava;

/// <summary>The kind of projector between vision tower and language model, by LLaVA's name.</summary>
/// <param name="Name"><c>linear</c>, <c>mlpNx_gelu</c> or <c>identity</c>.</param>
public readonly partial record struct ProjectorType(string Name)
{
    /// <summary>One linear layer.</summary>
    public static ProjectorType Linear { get; } = new("linear");

    /// <summary>Two linear layers with an exact GELU between: LLaVA v1.5 and v1.6.</summary>
    public static ProjectorType Mlp2xGelu { get; } = new("mlp2x_gelu");

    /// <summary>The tower's features as they are.</summary>
    public static ProjectorType Identity { get; } = new("identity");

    /// <summary>Number of linear layers: 0 for identity, null for a name that is not known.</summary>
    public int? LinearCount => Name switch
    {
        "linear" => 1,
        "identity" => 0,
        _ when MlpName().Match(Name) is { Success: true } match && int.Parse(match.Groups[1].Value) > 0
            => int.Parse(match.Groups[1].Value),
        _ => null,
    };

    [GeneratedRegex(@"^mlp(\d+)x_gelu$")]
    private static partial Regex MlpName();
}
