using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Primitives;

namespace Peft.Llava;

/// <summary>Brings <see cref="TrainingOptions"/> into a host.</summary>
public static class TrainingServices
{
    /// <summary>
    /// Makes <c>IOptions&lt;TrainingOptions&gt;</c>, its snapshot and its monitor from a section. A host checks them when it starts; otherwise the first use does, by an
    /// <see cref="OptionsValidationException"/> with every problem: unknown settings, values that can't be read, and what makes no sense together.
    /// </summary>
    /// <param name="services">The host's services.</param>
    /// <param name="section">The section, such as <c>configuration.GetSection("Training")</c>; a setting <c>Preset</c> names the preset to start from.</param>
    /// <param name="change">What the program decides itself, by <c>with</c>; null for nothing.</param>
    /// <returns>The same services.</returns>
    public static IServiceCollection AddLlavaTraining(
        this IServiceCollection services, IConfiguration section, Func<TrainingOptions, TrainingOptions>? change = null)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentNullException.ThrowIfNull(section);
        services.AddOptions<TrainingOptions>().ValidateOnStart();
        services.AddSingleton<IValidateOptions<TrainingOptions>, TrainingOptionsValidator>();
        services.AddSingleton<IOptionsChangeTokenSource<TrainingOptions>>(new Reload(section));
        return services.AddTransient<IOptionsFactory<TrainingOptions>>(s => new Factory(section, change, s.GetServices<IValidateOptions<TrainingOptions>>()));
    }

    // The options are immutable, so that they are read as a whole and not changed one by one.
    private sealed class Factory(
        IConfiguration section, Func<TrainingOptions, TrainingOptions>? change, IEnumerable<IValidateOptions<TrainingOptions>> validators) : IOptionsFactory<TrainingOptions>
    {
        public TrainingOptions Create(string name)
        {
            var problems = new List<string>();
            var options = SettingsReader.Read(SettingNode.Of(section), problems);
            if (change is not null) options = change(options);
            foreach (var validator in validators) problems.AddRange(validator.Validate(name, options).Failures ?? []);
            return problems.Count == 0 ? options : throw new OptionsValidationException(name, typeof(TrainingOptions), problems);
        }
    }

    private sealed class Reload(IConfiguration section) : IOptionsChangeTokenSource<TrainingOptions>
    {
        public string? Name => Options.DefaultName;

        public IChangeToken GetChangeToken() => section.GetReloadToken();
    }
}
