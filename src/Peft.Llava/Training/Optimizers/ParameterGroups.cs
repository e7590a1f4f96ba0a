namespace Peft.Llava;

/// <summary>
/// LLaVA's parameter groups: weights with decay, norms and biases without; with a projector rate the projector's own two after them.
/// </summary>
public static class ParameterGroups
{
    /// <summary>Sorts trained parameters into groups. Groups keep their place when they are empty, as in LLaVA.</summary>
    /// <param name="parameters">The trained parameters.</param>
    /// <param name="isNorm">Whether a parameter belongs to a normalisation layer.</param>
    /// <param name="learningRate">The rate.</param>
    /// <param name="projectorRate">The projector's own rate; null for no groups of its own.</param>
    /// <param name="weightDecay">The decay of weights.</param>
    public static IReadOnlyList<ParameterGroup> Build(
        IEnumerable<NamedParameter> parameters, Func<NamedParameter, bool> isNorm, double learningRate, double? projectorRate, double weightDecay)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(isNorm);
        var all = parameters.ToList();
        List<ParameterGroup> groups = [];
        void Add(string name, bool decays, bool? projector, double rate) => groups.Add(new ParameterGroup(
            name,
            [.. all.Where(p => Decays(p) == decays && (projector is null || IsProjector(p) == projector))],
            rate,
            decays ? weightDecay : 0));
        bool Decays(NamedParameter p) => !isNorm(p) && !p.Name.Contains("bias", StringComparison.Ordinal);

        bool? rest = projectorRate is null ? null : false;
        Add("decay", true, rest, learningRate);
        Add("no_decay", false, rest, learningRate);
        if (projectorRate is double own)
        {
            Add("projector_decay", true, true, own);
            Add("projector_no_decay", false, true, own);
        }
        return groups;
    }

    private static bool IsProjector(NamedParameter parameter)
        => parameter.Name.Contains("mm_projector", StringComparison.Ordinal)
            || parameter.Name.Contains("multi_modal_projector", StringComparison.Ordinal);
}
