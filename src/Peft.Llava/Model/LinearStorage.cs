using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Chooses how a linear layer's weight is stored, while the model is built: the place where quantisation joins in.
/// </summary>
/// <param name="path">The layer's path in memory, such as <c>model.layers.0.self_attn.q_proj</c>.</param>
/// <param name="weight">(out, in), possibly memory-mapped; the callee takes ownership.</param>
/// <param name="bias">(out) or null; the callee takes ownership.</param>
/// <returns>The layer, or null to have a <see cref="DenseFrozenLinear"/> (nothing was taken then).</returns>
public delegate FrozenLinear? LinearStorage(string path, Tensor weight, Tensor? bias);
