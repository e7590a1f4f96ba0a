using TorchSharp.Modules;

namespace Peft.Llava;

/// <summary>A trained tensor with its name.</summary>
/// <param name="Name">The name it is saved and reported under, as <c>model.named_parameters()</c> of the Python peer has it.</param>
/// <param name="Parameter">The tensor; the model owns it.</param>
public sealed record NamedParameter(string Name, Parameter Parameter);

/// <summary>Parameters that share a learning rate and a weight decay.</summary>
/// <param name="name">What reports call the group.</param>
/// <param name="parameters">The parameters, in the model's order.</param>
/// <param name="baseRate">The rate that the schedule's factor is applied to.</param>
/// <param name="weightDecay">The decay.</param>
public sealed class ParameterGroup(string name, IReadOnlyList<NamedParameter> parameters, double baseRate, double weightDecay)
{
    /// <summary>What reports call the group.</summary>
    public string Name { get; } = name;

    /// <summary>The parameters, in the model's order.</summary>
    public IReadOnlyList<NamedParameter> Parameters { get; } = parameters;

    /// <summary>The rate that the schedule's factor is applied to.</summary>
    public double BaseRate { get; } = baseRate;

    /// <summary>The decay.</summary>
    public double WeightDecay { get; } = weightDecay;

    /// <summary>The rate of the next step.</summary>
    public double Rate { get; set; } = baseRate;
}
