using TorchSharp;
using static TorchSharp.torch;

namespace VisionClassifier;

/// <summary>Three convolutions and two linear layers, all in fields that can hold another module.</summary>
internal sealed class SmallConvNet : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> conv1 = nn.Conv2d(3, 24, 3, padding: 1);
    private readonly nn.Module<Tensor, Tensor> conv2 = nn.Conv2d(24, 48, 3, padding: 1);
    private readonly nn.Module<Tensor, Tensor> conv3 = nn.Conv2d(48, 64, 3, padding: 1);
    private readonly nn.Module<Tensor, Tensor> hidden = nn.Linear(64 * 4 * 4, 64);
    private readonly nn.Module<Tensor, Tensor> head;
    private readonly nn.Module<Tensor, Tensor> dropout = nn.Dropout(0.3);

    public SmallConvNet(int classes)
        : base(nameof(SmallConvNet))
    {
        head = nn.Linear(64, classes);
        RegisterComponents();
    }

    /// <summary>F32 (B, 3, 32, 32) to scores (B, classes).</summary>
    public override Tensor forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        var x = input;
        foreach (var conv in new[] { conv1, conv2, conv3 }) x = nn.functional.max_pool2d(nn.functional.relu(conv.call(x)), 2);
        x = nn.functional.relu(hidden.call(dropout.call(x.flatten(1))));
        return head.call(dropout.call(x)).MoveToOuterDisposeScope();
    }
}
