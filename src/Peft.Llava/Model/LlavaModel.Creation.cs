using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LlavaModel
{
    /// <summary>
    /// Loads a checkpoint folder: the original LLaVA layout, llava-hf (any of its key styles), llava-next, or a plain LLaMA; safetensors or
    /// PyTorch files, sharded or not. All faults are found before anything is built.
    /// </summary>
    /// <param name="folder">The folder, with a <c>config.json</c>.</param>
    /// <param name="options">How to read it; null for stored dtypes, memory-mapped.</param>
    /// <returns>A frozen model in evaluation mode; the caller disposes it.</returns>
    /// <exception cref="InvalidConfigurationException">A configuration or the options hold values that cannot be used.</exception>
    /// <exception cref="CheckpointException">There is no such folder.</exception>
    /// <exception cref="VisionTowerNotFoundException">The vision tower's folder is not where the configuration says.</exception>
    /// <exception cref="CheckpointMismatchException">Tensors are missing, unexpected, or of another shape.</exception>
    /// <exception cref="LibtorchNotLoadedException">libtorch cannot be loaded; the message holds the whole diagnosis.</exception>
    public static LlavaModel Load(string folder, LlavaLoadOptions? options = null)
    {
        // Asked first: TorchSharp's own message blames a missing package, whatever the cause.
        PeftEnvironment.EnsureLibtorch();
        options ??= new LlavaLoadOptions();
        options.ThrowIfInvalid();
        return LlavaLoader.Load(folder, options);
    }

    /// <summary>Builds a model over given tensors.</summary>
    /// <param name="config">The configuration, with the tower's sizes.</param>
    /// <param name="state">All tensors of <see cref="ModelManifest"/> by name, detached from dispose scopes; the model takes ownership.</param>
    /// <param name="storage">How linear layers are stored; null for dense.</param>
    /// <returns>A frozen model in evaluation mode; the caller disposes it.</returns>
    /// <exception cref="CheckpointMismatchException">Tensors are missing, unexpected, or of another shape.</exception>
    /// <exception cref="InvalidConfigurationException">The tower has no such feature layer.</exception>
    public static LlavaModel FromState(LlavaConfig config, IReadOnlyDictionary<string, Tensor> state, LinearStorage? storage = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(state);
        if (config.Vision is { } vision) config.FeatureLayer.Resolve(vision.LayerCount);
        var faults = new CheckpointFaults();
        foreach (var spec in ModelManifest.Of(config))
        {
            if (!state.TryGetValue(spec.Name, out var tensor)) faults.Missing(spec.Name);
            else faults.CheckShape(spec.Name, spec.Shape, tensor.shape);
        }
        foreach (string name in state.Keys.Except(ModelManifest.Of(config).Select(s => s.Name))) faults.Unexpected(name);
        faults.ThrowIfAny("The given state");
        var (model, head) = new ModelAssembler(config, name => state[name].DetachFromDisposeScope(), storage).Build();
        return new LlavaModel(config, model, head);
    }

    /// <summary>Builds a model with random weights, for tests and benchmarks: the same seed always gives the same weights.</summary>
    /// <param name="config">The configuration, with the tower's sizes.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="dtype">The dtype of the weights; null for float32.</param>
    /// <param name="storage">How linear layers are stored; null for dense.</param>
    /// <returns>A frozen model in evaluation mode; the caller disposes it.</returns>
    /// <exception cref="LibtorchNotLoadedException">libtorch cannot be loaded; the message holds the whole diagnosis.</exception>
    public static LlavaModel CreateRandom(LlavaConfig config, long seed, ScalarType? dtype = null, LinearStorage? storage = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        PeftEnvironment.EnsureLibtorch();
        return Random(config, seed, dtype, storage);
    }

    private static LlavaModel Random(LlavaConfig config, long seed, ScalarType? dtype, LinearStorage? storage)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)seed);
        var state = new Dictionary<string, Tensor>();
        foreach (var spec in ModelManifest.Of(config))
            state[spec.Name] = RandomWeights.Draw(spec, generator).to(dtype ?? ScalarType.Float32).DetachFromDisposeScope();
        return FromState(config, state, storage);
    }
}
