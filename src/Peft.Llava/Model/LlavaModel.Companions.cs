using Peft.Core;

namespace Peft.Llava;

/// <content>What a LoRA run of LLaVA leaves beside its adapter.</content>
public sealed partial class LlavaModel : IAdapterCompanions
{
    /// <inheritdoc/>
    public string? Unapplied(string folder)
    {
        ArgumentNullException.ThrowIfNull(folder);
        if (!File.Exists(Path.Combine(folder, NonLoraTrainables.FileName))) return null;
        using var others = NonLoraTrainables.Load(folder);
        var missing = others.UnappliedTo(this);
        return missing.Count == 0 ? null : $"{NonLoraTrainables.FileName} beside the adapter holds {missing.Count} trained tensor(s) that the model does not have ({missing[0]}"
            + $"{(missing.Count > 1 ? ", …" : "")}). Load the folder by TrainedFolder.Load, several of them by TrainedFolder.LoadRuns or TrainedFolder.Add, which give each adapter its own; "
            + "or put the values into the model by NonLoraTrainables.ApplyTo first.";
    }
}
