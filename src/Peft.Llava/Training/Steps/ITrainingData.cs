namespace Peft.Llava;

/// <summary>Samples that a <see cref="LLaVATrainer"/> learns from, as final batches. Implementations may be called from several threads.</summary>
public interface ITrainingData
{
    /// <summary>Number of samples.</summary>
    int Count { get; }

    /// <summary>
    /// A length per sample for the orders by length: any measure (LLaVA counts words), negative for a sample without an image, never 0.
    /// </summary>
    IReadOnlyList<int> ModalityLengths { get; }

    /// <summary>Which samples an epoch takes; null, the default, takes each once.</summary>
    IEpochSampling? Sampling => null;

    /// <summary>
    /// The tokenizer that the samples are encoded with, whose files go into every folder that the trainer writes. Null, the default, does not say: the
    /// base's files are copied then, which know nothing of tokens that were added.
    /// </summary>
    LlamaTokenizer? Tokenizer => null;

    /// <summary>
    /// The longest sequence that the batches hold, image features included, which has to be <see cref="TrainingOptions.MaxLength"/> where that is given. Null, the
    /// default, does not say.
    /// </summary>
    int? MaxLength => null;

    /// <summary>
    /// Counts each sample's tokens as the model gets them, image features included, for <see cref="TrainingOptions.LongestBatchFirst"/>. By default the
    /// absolute <see cref="ModalityLengths"/>.
    /// </summary>
    /// <param name="cancellation">Stops the work.</param>
    IReadOnlyList<int> CountTokens(CancellationToken cancellation = default) => [.. ModalityLengths.Select(Math.Abs)];

    /// <summary>
    /// What makes a sample this one, as text: a checkpoint keeps a hash over all samples, and a run that resumes with other samples, or the same in
    /// another order, is refused. By default the length alone.
    /// </summary>
    /// <param name="index">The sample's number.</param>
    string ContentOf(int index) => ModalityLengths[index].ToString(System.Globalization.CultureInfo.InvariantCulture);

    /// <summary>Makes the batch of some samples.</summary>
    /// <param name="indices">Sample numbers.</param>
    /// <returns>A fresh batch on the CPU, with labels; the caller disposes it.</returns>
    LlavaBatch Batch(IReadOnlyList<int> indices);
}
