namespace Peft.Quantization;

/// <summary>Which update an optimizer makes.</summary>
internal enum UpdateRule
{
    /// <summary>Adam with decoupled decay before the update.</summary>
    Adam,

    /// <summary>Lion (Chen et al., 2023) with decoupled decay.</summary>
    Lion,

    /// <summary>SGD with momentum; decay is added to the gradient.</summary>
    Sgd,
}

/// <summary>The numbers of one update of one parameter.</summary>
/// <param name="Rule">The update.</param>
/// <param name="Step">From 1.</param>
/// <param name="Rate">The learning rate.</param>
/// <param name="Beta1">Of the first moment (momentum for SGD).</param>
/// <param name="Beta2">Of the second moment (of the state for Lion).</param>
/// <param name="Epsilon">Added to the denominator.</param>
/// <param name="WeightDecay">The decay.</param>
/// <param name="GradientScale">Multiplies the gradient first.</param>
internal readonly record struct UpdateNumbers(
    UpdateRule Rule, int Step, double Rate, double Beta1, double Beta2, double Epsilon, double WeightDecay, double GradientScale)
{
    /// <summary>rate / (1 - beta1^step).</summary>
    public float CorrectedRate => (float)(Rate / (1 - Math.Pow(Beta1, Step)));

    /// <summary>sqrt(1 - beta2^step).</summary>
    public float Correction2 => (float)Math.Sqrt(1 - Math.Pow(Beta2, Step));

    /// <summary>What a decoupled decay leaves.</summary>
    public float Keep => (float)(1 - Rate * WeightDecay);
}
