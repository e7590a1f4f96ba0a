using Peft.Core;
using Peft.Quantization;

namespace Peft.Llava;

public sealed partial class LlavaModel
{
    /// <summary>
    /// Writes the whole model as a checkpoint folder, as transformers' <c>save_pretrained</c> does, in its own layout: <c>config.json</c> and safetensors. Dense weights go out as they are,
    /// quantised ones byte for byte as bitsandbytes stores them, with the <c>quantization_config</c> that reads them, so that the folder loads
    /// again here and in transformers without quantising anything.
    /// </summary>
    /// <param name="folder">The folder; it is made if need be, and a checkpoint in it is replaced once the new files are whole.</param>
    /// <param name="options">Names, sizes of files, companions; null for the defaults.</param>
    /// <param name="cancellation">Ends the writing; earlier files are as they were.</param>
    /// <returns>The names of the files written.</returns>
    /// <remarks>
    /// In the original layout the vision tower is among the weights, as in LLaVA's own whole models, and <c>vision_tower.json</c> describes it, so that the folder
    /// loads by itself, also after it was moved; <c>mm_vision_tower</c> stays for LLaVA. Packed weights are copied while they are written: that takes their bytes
    /// once more.
    /// </remarks>
    /// <exception cref="AdapterStateException">The model carries adapters; merge them or take them off first.</exception>
    /// <exception cref="QuantizationConfigException">Layers are quantised in different ways, for which a checkpoint has no words.</exception>
    /// <exception cref="TensorWriteException">A tensor cannot be written; nothing was changed.</exception>
    /// <exception cref="TokenizerFileException">The files that the tokenizer was read from are no longer there; the model is written.</exception>
    /// <exception cref="FileWriteException">The operating system refused; earlier files are as they were.</exception>
    public IReadOnlyList<string> SavePretrained(string folder, SavePretrainedOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        return new CheckpointWriter(this, options ?? new SavePretrainedOptions()).Write(folder, cancellation);
    }
}
