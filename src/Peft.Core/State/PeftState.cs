using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Splits the parameters of a model with adapters into LoRA state and the other trained parameters, as LLaVA's training script does; shards are
/// gathered on the way.
/// </summary>
public static class PeftState
{
    /// <summary>The LoRA factors and the biases that are saved with them (<c>get_peft_state_maybe_zero_3</c>).</summary>
    /// <param name="parameters">All parameters by PEFT's names (<see cref="PeftModel.NamedParameters"/>).</param>
    /// <param name="bias">
    /// Which biases: with <see cref="LoraBias.All"/> every parameter with "bias" in its name, as there; with <see cref="LoraBias.LoraOnly"/>
    /// those of the layers with LoRA, which is what PEFT means and where LLaVA's own loop fails.
    /// </param>
    /// <param name="gatherer">How parameters become whole; null if they are.</param>
    /// <returns>Fresh tensors on the CPU by name, in the parameters' order; the caller disposes them.</returns>
    public static OrderedDictionary<string, Tensor> GetLoraState(
        IEnumerable<(string Name, Parameter Parameter)> parameters, LoraBias bias, IParameterGatherer? gatherer = null)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        var all = parameters.ToList();
        var adapted = all.Where(p => IsLora(p.Name)).Select(p => p.Name[..p.Name.IndexOf("lora_", StringComparison.Ordinal)]).ToHashSet();
        bool Wanted(string name) => IsLora(name) || bias switch
        {
            LoraBias.All => name.Contains("bias", StringComparison.Ordinal),
            LoraBias.LoraOnly => (name.EndsWith(".base_layer.bias", StringComparison.Ordinal) && adapted.Contains(name[..^"base_layer.bias".Length]))
                || (name.EndsWith(".bias", StringComparison.Ordinal) && adapted.Contains(name[..^"bias".Length])),
            _ => false,
        };
        return Gather(all.Where(p => Wanted(p.Name)), gatherer);
    }

    /// <summary>The trained parameters that are not LoRA: a projector, a token (<c>get_peft_state_non_lora_maybe_zero_3</c>).</summary>
    /// <param name="parameters">All parameters by PEFT's names.</param>
    /// <param name="trainedOnly">Whether frozen parameters are left out.</param>
    /// <param name="gatherer">How parameters become whole; null if they are.</param>
    /// <returns>Fresh tensors on the CPU by name, in the parameters' order; the caller disposes them.</returns>
    public static OrderedDictionary<string, Tensor> GetNonLoraTrainables(
        IEnumerable<(string Name, Parameter Parameter)> parameters, bool trainedOnly = true, IParameterGatherer? gatherer = null)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        return Gather(parameters.Where(p => !IsLora(p.Name) && (!trainedOnly || p.Parameter.requires_grad)), gatherer);
    }

    private static bool IsLora(string name) => name.Contains("lora_", StringComparison.Ordinal);

    private static OrderedDictionary<string, Tensor> Gather(IEnumerable<(string Name, Parameter Parameter)> parameters, IParameterGatherer? gatherer)
    {
        gatherer ??= WholeParameters.Instance;
        var state = new OrderedDictionary<string, Tensor>();
        foreach (var (name, parameter) in parameters) state[name] = gatherer.Gather(name, parameter);
        return state;
    }
}
