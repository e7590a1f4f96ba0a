using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Keeps small gradients above float16's smallest number: the loss is multiplied by a scale before the backward pass and the gradients are divided
/// by it afterwards. A step whose gradients are not finite is skipped and the scale falls; after many good ones it grows.
/// </summary>
/// <remarks>
/// The state machine of <c>torch.cuda.amp.GradScaler</c> (<c>_amp_update_scale_</c>), float32 arithmetic included: Micikevicius et al., "Mixed
/// Precision Training" (2018), section 3.2. Not for use by several threads at once.
/// </remarks>
public sealed class GradientScaler
{
    private GradientScalerOptions _options;
    private float _scale;

    /// <summary>Creates a scaler.</summary>
    /// <param name="options">The values; null for PyTorch's.</param>
    /// <exception cref="TrainingOptionsException">Values cannot be used; all of them are named.</exception>
    public GradientScaler(GradientScalerOptions? options = null)
    {
        _options = options ?? new GradientScalerOptions();
        var problems = _options.Problems();
        if (problems.Count > 0) throw new TrainingOptionsException(problems);
        _scale = (float)_options.InitialScale;
    }

    /// <summary>The present scale.</summary>
    public double Scale => _scale;

    /// <summary>Good steps in a row since the scale last changed.</summary>
    public int GrowthTracker { get; private set; }

    /// <summary>Whether one more fall leaves the scale at or above <see cref="GradientScalerOptions.MinimumScale"/>.</summary>
    public bool CanFall => _scale * _options.BackoffFactor >= _options.MinimumScale;

    /// <summary>Divides gradients by the scale, in place.</summary>
    /// <param name="parameters">The parameters; those without a gradient are left out.</param>
    public void Unscale(IEnumerable<NamedParameter> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        float inverse = (float)(1 / (double)_scale);
        foreach (var parameter in parameters)
            if (parameter.Parameter.grad is { } gradient) gradient.mul_(inverse);
    }

    /// <summary>Takes note of how a step went.</summary>
    /// <param name="overflow">Whether a gradient was NaN or infinite, so that the step was skipped.</param>
    public void Update(bool overflow)
    {
        if (overflow)
        {
            _scale = (float)(_scale * _options.BackoffFactor);
            GrowthTracker = 0;
            return;
        }
        if (++GrowthTracker < _options.GrowthInterval) return;
        float grown = (float)(_scale * _options.GrowthFactor);
        if (float.IsFinite(grown)) _scale = grown;
        GrowthTracker = 0;
    }

    /// <summary>Writes the state as <c>torch.save(scaler.state_dict(), path)</c> does: transformers' <c>scaler.pt</c>.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void Save(string path) => PickleWriter.WriteObject(path, new PickleDictionary(
    [
        new("scale", (double)_scale), new("growth_factor", _options.GrowthFactor), new("backoff_factor", _options.BackoffFactor),
        new("growth_interval", (long)_options.GrowthInterval), new("_growth_tracker", (long)GrowthTracker),
    ]));

    /// <summary>Takes over a state, factors and interval included, as <c>load_state_dict</c> does; our own file or PyTorch's.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="StateMismatchException">The file holds another kind of state; nothing has changed.</exception>
    /// <exception cref="PickleFormatException">The file is damaged.</exception>
    /// <exception cref="PickleRefusedException">The file holds code.</exception>
    public void Load(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        var state = PickleFile.ReadObject(path) as PickleDictionary;
        var faults = new List<string>();
        double Value(string key, Func<double, bool> fits)
        {
            double value = state?.GetValueOrDefault(key) switch { double number => number, long number => number, _ => double.NaN };
            if (!fits(value)) faults.Add(double.IsNaN(value) ? $"'{key}' is missing or not a number" : $"'{key}' is {value:R}, which it cannot be");
            return value;
        }
        double scale = Value("scale", v => v is > 0 and <= float.MaxValue);
        double growth = Value("growth_factor", v => v is > 1 and < double.PositiveInfinity);
        double backoff = Value("backoff_factor", v => v is > 0 and < 1);
        double interval = Value("growth_interval", v => v is >= 1 and <= int.MaxValue && double.IsInteger(v));
        double tracker = Value("_growth_tracker", v => v is >= 0 and <= int.MaxValue && double.IsInteger(v));
        if (faults.Count > 0) throw new StateMismatchException($"The gradient scaler's state {path}", faults);
        _options = _options with { GrowthFactor = growth, BackoffFactor = backoff, GrowthInterval = (int)interval };
        _scale = (float)scale;
        GrowthTracker = (int)tracker;
    }
}
