using Microsoft.Extensions.Options;

namespace Peft.Llava;

/// <summary>Lets a host validate <see cref="TrainingOptions"/>; <see cref="TrainingServices.AddLlavaTraining"/> registers it.</summary>
public sealed class TrainingOptionsValidator : IValidateOptions<TrainingOptions>
{
    /// <inheritdoc/>
    public ValidateOptionsResult Validate(string? name, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        var problems = options.Problems();
        return problems.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(problems);
    }
}
