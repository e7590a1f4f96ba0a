using Peft.Core;
using TorchSharp;

namespace Peft.Llava;

/// <summary>Loads what a LoRA run of LLaVA (or of <c>LLaVATrainer</c>) left in its folder, by what the folder holds and never by its name.</summary>
public static class TrainedFolder
{
    /// <summary>
    /// Puts a run's results on its base: <c>non_lora_trainables.bin</c>, where there is one, into the model's own parameters, and the adapter beside
    /// them, frozen and active.
    /// </summary>
    /// <param name="model">The base; it stays the caller's, but its projector has the run's values afterwards.</param>
    /// <param name="folder">The run's folder.</param>
    /// <param name="adapterName">The name the adapter gets.</param>
    /// <param name="options">How the adapter is loaded; null for the defaults.</param>
    /// <returns>The handle of the adapters; disposing it takes them off again, the projector's values stay.</returns>
    /// <exception cref="AdapterFolderException">The folder holds no adapter.</exception>
    /// <exception cref="AdapterTensorsException">The adapter does not fit the model.</exception>
    /// <exception cref="WrongBaseException">It was trained on another base, and <see cref="AdapterOptions.AllowOtherBase"/> is not set; nothing has changed.</exception>
    /// <exception cref="CheckpointMismatchException">The other values do not fit the model; it is as it was, without adapters.</exception>
    public static PeftModel Load(
        LlavaModel model, string folder, string adapterName = PeftModelExtensions.DefaultAdapter, AdapterOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(folder);
        // With bias "all" LLaVA's adapter file has the tower's biases too, rounded to the run's dtype. Its builder loads the tower last, from its own
        // folder, so that they have no effect there, nor here.
        using var noGrad = torch.no_grad();
        var tower = model.Parameters(ModelPart.VisionTower).Where(p => p.Name.EndsWith(".bias", StringComparison.Ordinal))
            .Select(p => (p.Parameter, Copy: p.Parameter.clone().DetachFromDisposeScope())).ToList();
        var peft = PeftModel.Load(model, folder, adapterName, options);
        try
        {
            foreach (var (parameter, copy) in tower) parameter.copy_(copy);
            if (!File.Exists(Path.Combine(folder, NonLoraTrainables.FileName))) return peft;
            using var others = NonLoraTrainables.Load(folder);
            others.ApplyTo(model);
            return peft;
        }
        catch
        {
            peft.Dispose();
            throw;
        }
        finally
        {
            foreach (var (_, copy) in tower) copy.Dispose();
        }
    }
}
