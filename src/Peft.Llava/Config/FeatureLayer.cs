namespace Peft.Llava;

/// <summary>Which hidden state of the vision tower the projector reads.</summary>
/// <param name="Value">The index as configurations give it.</param>
/// <remarks>
/// N layers give N + 1 states: 0 is the embedding (after <c>pre_layrnorm</c>), i the output of layer i; -1 is the last, -2 (LLaVA) the one
/// before. No <c>post_layernorm</c> is applied to any of them.
/// </remarks>
public readonly record struct FeatureLayer(int Value)
{
    /// <summary>How many layers must run to reach this state.</summary>
    /// <param name="layerCount">Layers of the tower.</param>
    /// <returns>0 .. <paramref name="layerCount"/>.</returns>
    /// <exception cref="InvalidConfigurationException">There is no such state.</exception>
    public int Resolve(int layerCount)
    {
        int index = Value < 0 ? layerCount + 1 + Value : Value;
        if (index < 0 || index > layerCount)
            throw new InvalidConfigurationException("mm_vision_select_layer",
                [$"layer {Value} does not exist: the vision tower has {layerCount} layers, so {-layerCount - 1} to {layerCount} do."]);
        return index;
    }
}
