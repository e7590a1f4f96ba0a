using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>A model in evaluation mode and no gradients, until the scope is disposed; a tower stays in evaluation mode, as it is in a training.</summary>
internal sealed class EvaluationMode : IDisposable
{
    private readonly LlavaModel _model;
    private readonly bool _training;
    private readonly IDisposable _noGrad = no_grad();

    public EvaluationMode(LlavaModel model)
    {
        (_model, _training) = (model, model.training);
        model.eval();
    }

    public void Dispose()
    {
        _model.train(_training);
        _model.VisionTower?.eval();
        _noGrad.Dispose();
    }
}
