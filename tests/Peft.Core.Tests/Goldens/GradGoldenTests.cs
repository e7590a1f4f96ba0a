using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>One training step as PEFT takes it: loss, gradients by name, loss after plain gradient descent.</summary>
public sealed class GradGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Peft.Testing.Goldens.Rows(AdapterCase.Area, c => c.Kind == "grad");

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void Logits_and_gradients_are_those_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var scope = NewDisposeScope();
        using var step = new Step(golden, AdapterCase.Dtype(golden.Json.GetProperty("base_dtype").GetString()!));
        var expected = AdapterCase.Tensors(golden, "expected.safetensors");
        var (loss, logits) = step.Loss();
        AdapterCase.CompareOutputs(golden, step.Inputs, expected["logits"], logits, "logits");
        loss.backward();
        var none = AdapterCase.Names(golden.Json.GetProperty("values"), "parameters_without_grad")!;
        Assert.Equal(
            expected.Keys.Where(k => k.StartsWith("grad/", StringComparison.Ordinal)).Select(k => k[5..]).Concat(none).Order(StringComparer.Ordinal),
            step.Trained.Select(p => p.Name).Order(StringComparer.Ordinal));
        foreach (var (name, parameter) in step.Trained)
        {
            if (none.Contains(name)) Assert.True(parameter.grad is null, $"{name} has a gradient.");
            else AdapterCase.Compare(golden, "grads", expected["grad/" + name], parameter.grad!, "grad/" + name);
        }
    }

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void Losses_before_and_after_a_step_of_gradient_descent_are_those_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var scope = NewDisposeScope();
        using var step = new Step(golden, AdapterCase.Dtype(golden.Json.GetProperty("base_dtype").GetString()!));
        var expected = AdapterCase.Tensors(golden, "expected.safetensors");
        var (loss, _) = step.Loss();
        AdapterCase.Compare(golden, "loss", expected["loss"], loss.reshape(1), "loss");
        loss.backward();
        using (no_grad())
        {
            double rate = golden.Json.GetProperty("lr").GetDouble();
            foreach (var (_, parameter) in step.Trained)
                if (parameter.grad is { } gradient) parameter.sub_(gradient * rate);
        }
        var (after, _) = step.Loss();
        AdapterCase.Compare(golden, "loss", expected["loss_after_sgd"], after.reshape(1), "loss_after_sgd");
    }

    private sealed class Step : IDisposable
    {
        private readonly ReferenceModel _model;
        private readonly PeftModel _peft;

        public Step(GoldenCase golden, ScalarType dtype)
        {
            _model = AdapterCase.LoadBase(golden, dtype);
            string adapter = golden.Json.GetProperty("adapters")[0].GetProperty("folder").GetString()!;
            _peft = PeftModel.Load(_model, golden.PathOf(adapter), options: AdapterCase.Options(golden, trainable: true));
            if (golden.Json.GetProperty("files").TryGetProperty("masks", out var masks))
                _peft.Dropout = new RecordedDropout(AdapterCase.Tensors(golden, masks.GetString()!));
            _model.train();
            Inputs = AdapterCase.Tensors(golden, "inputs.safetensors");
            Trained = [.. _peft.TrainableParameters()];
        }

        public Dictionary<string, Tensor> Inputs { get; }

        public IReadOnlyList<(string Name, Parameter Parameter)> Trained { get; }

        public (Tensor Loss, Tensor Logits) Loss() => GradGoldenTests.Loss(_model, Inputs);

        public void Dispose()
        {
            _peft.Dispose();
            _model.Dispose();
        }
    }

    // Each position predicts the next; the mean is over the labels that are not -100.
    private static (Tensor Loss, Tensor Logits) Loss(ReferenceModel model, Dictionary<string, Tensor> inputs)
    {
        var logits = model.Run(new ReferenceInputs(inputs));
        long length = logits.shape[1];
        var predicted = logits.narrow(1, 0, length - 1).flatten(0, 1).to(ScalarType.Float32);
        var wanted = inputs["labels"].narrow(1, 1, length - 1).flatten();
        return (nn.functional.cross_entropy(predicted, wanted, ignore_index: -100), logits);
    }

    private sealed class RecordedDropout(Dictionary<string, Tensor> masks) : IDropoutSource
    {
        public IDropoutMask Draw(string module, Tensor input, double probability) => new Mask(masks[module], probability);

        private sealed record Mask(Tensor Kept, double Probability) : IDropoutMask
        {
            public Tensor Apply(Tensor input) => (input * Kept.to(input.dtype)).div_(1 - Probability);
        }
    }
}
