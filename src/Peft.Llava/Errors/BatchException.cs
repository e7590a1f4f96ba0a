using Peft.Core;

namespace Peft.Llava;

/// <summary>A sample cannot be put into a batch: ids, labels, images and configuration do not fit together.</summary>
public sealed class BatchException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sampleId">The sample's id.</param>
    /// <param name="message">What is wrong, and the next step.</param>
    public BatchException(string sampleId, string message)
        : base($"Sample '{sampleId}': {message}") => SampleId = sampleId;

    /// <summary>The sample's id.</summary>
    public string SampleId { get; }
}
