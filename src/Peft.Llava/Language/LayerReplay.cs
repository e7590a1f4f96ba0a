using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// The stream within a checkpointed layer, after its attention: kept from the first run, and put in place in the second, which then need not
/// compute what only this sum needs (the attention's last product). One (N, D) tensor for each layer.
/// </summary>
internal sealed class LayerReplay
{
    private readonly Tensor? _kept;

    /// <summary>For the first run.</summary>
    public LayerReplay()
    {
    }

    /// <summary>For the second run.</summary>
    /// <param name="kept">(N, D): <see cref="Kept"/> of the first.</param>
    public LayerReplay(Tensor kept) => _kept = kept;

    /// <summary>What the first run kept; of the scope around the layer.</summary>
    public Tensor? Kept { get; private set; }

    /// <summary>Keeps the stream, or puts the kept one in its place.</summary>
    /// <param name="stream">(N, D): x + attention. In the second run its content is overwritten; its history stays.</param>
    public void AfterAttention(Tensor stream)
    {
        using var noGrad = no_grad();
        if (_kept is null)
        {
            Kept = stream.alias().MoveToOuterDisposeScope();
            return;
        }
        using var content = stream.detach();
        content.copy_(_kept);
    }
}
