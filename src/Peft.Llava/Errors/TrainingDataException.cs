using Peft.Core;

namespace Peft.Llava;

/// <summary>The samples cannot be trained on as they are.</summary>
/// <param name="message">What is wrong, with the sample, and the next step.</param>
public sealed class TrainingDataException(string message) : PeftException(message);
