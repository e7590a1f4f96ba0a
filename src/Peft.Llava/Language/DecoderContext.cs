using Peft.Core;

namespace Peft.Llava;

/// <summary>What every decoder layer needs besides its input.</summary>
/// <param name="Layout">Where each sequence lies.</param>
/// <param name="Rope">The rotation of each token.</param>
/// <param name="Cache">Keys and values of earlier tokens (generation), or null (training).</param>
/// <param name="Routing">The way to the model's adapters, or null.</param>
/// <param name="Replay">What a checkpointed layer keeps, or null.</param>
internal sealed record DecoderContext(
    SequenceLayout Layout, RotaryTables Rope, KeyValueCache? Cache = null, AdapterRouting? Routing = null, LayerReplay? Replay = null);
