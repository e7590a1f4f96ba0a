#pragma warning disable IDE0044
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>A user's own model: layers in fields, lists, a sequence, a field of a narrow type, a norm.</summary>
internal sealed class TinyNet : nn.Module<Tensor, Tensor>
{
    private readonly nn.Module<Tensor, Tensor> first;
    private readonly ModuleList<nn.Module<Tensor, Tensor>> blocks;
    private readonly Sequential tail;
    private readonly Linear narrow;
    private readonly LayerNorm norm;

    public TinyNet()
        : base(nameof(TinyNet))
    {
        first = nn.Linear(7, 5);
        blocks = new ModuleList<nn.Module<Tensor, Tensor>>(nn.Linear(5, 5), nn.Linear(5, 5, hasBias: false));
        tail = nn.Sequential(("up", nn.Linear(5, 9)), ("act", nn.ReLU()), ("down", nn.Linear(9, 3)));
        narrow = nn.Linear(3, 3);
        norm = nn.LayerNorm(3);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        x = first.call(x);
        foreach (var block in blocks) x = x + block.call(x).tanh();
        return norm.call(narrow.call(tail.call(x)));
    }

    /// <summary>Factors away from zero, so that an adapter has an effect.</summary>
    public static void Randomise(PeftModel peft)
    {
        using var noGrad = no_grad();
        foreach (var tensor in peft.Hosts.SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf))) tensor.Tensor.copy_(randn_like(tensor.Tensor) * 0.3);
    }
}
