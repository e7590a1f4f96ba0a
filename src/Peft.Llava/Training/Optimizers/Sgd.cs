using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Stochastic gradient descent as <c>torch.optim.SGD</c>: decay through the gradient, momentum without dampening.</summary>
/// <param name="groups">The parameters; they remain the model's.</param>
/// <param name="momentum">Share of the former step that goes on; 0 keeps no state.</param>
/// <param name="nesterov">Nesterov's form of the momentum.</param>
public sealed class Sgd(IReadOnlyList<ParameterGroup> groups, double momentum = 0, bool nesterov = false) : TrainingOptimizer(groups)
{
    /// <inheritdoc/>
    protected override void StepCore(double gradientScale)
    {
        foreach (var group in Groups)
        {
            foreach (var (parameter, gradient) in WithGradient(group))
            {
                if (gradientScale != 1) gradient.mul_(gradientScale);
                Tensor step = gradient;
                if (group.WeightDecay != 0) step = step.add(parameter.Parameter, alpha: group.WeightDecay);
                if (momentum != 0)
                {
                    bool started = Slots(parameter).ContainsKey("momentum_buffer");
                    var buffer = Slot(parameter, "momentum_buffer");
                    if (started) buffer.mul_(momentum).add_(step);
                    else buffer.copy_(step);
                    step = nesterov ? step.add(buffer, alpha: momentum) : buffer;
                }
                parameter.Parameter.add_(step, alpha: -group.Rate);
            }
        }
    }
}
