using Peft.Core;

namespace Peft.Llava;

/// <summary>Why a sample cannot be trained on.</summary>
public enum SampleProblem
{
    /// <summary>An image file is not there.</summary>
    MissingImage,

    /// <summary>An image file cannot be decoded.</summary>
    BadImage,

    /// <summary>The text has another number of image placeholders than the sample has images.</summary>
    PlaceholderCount,

    /// <summary>The template cannot write the conversation.</summary>
    Conversation,

    /// <summary>No position has a label.</summary>
    NothingSupervised,

    /// <summary>The sample is longer than the limit, and cutting is not allowed.</summary>
    TooLong,
}

/// <summary>One sample cannot be trained on.</summary>
public sealed class SampleException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="problem">The kind of fault.</param>
    /// <param name="sample">The sample.</param>
    /// <param name="reason">What is wrong, as a sentence without its subject.</param>
    /// <param name="nextStep">What to do, as a sentence.</param>
    /// <param name="file">The file at fault, if one is.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public SampleException(
        SampleProblem problem, LlavaSample sample, string reason, string nextStep, string? file = null, Exception? innerException = null)
        : base($"Sample '{sample.Id}' (record {sample.Index}): {reason} {nextStep}", innerException)
    {
        Problem = problem;
        SampleId = sample.Id;
        Index = sample.Index;
        File = file;
    }

    /// <summary>The kind of fault.</summary>
    public SampleProblem Problem { get; }

    /// <summary>The sample's id.</summary>
    public string SampleId { get; }

    /// <summary>The sample's place in the data file.</summary>
    public int Index { get; }

    /// <summary>The file at fault, or null.</summary>
    public string? File { get; }
}
