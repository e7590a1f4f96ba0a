using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>
/// Ctrl-C (SIGINT) and a request to end (SIGTERM) as a cancellation token, for console programs: the first one cancels, so that a training can save
/// and end by itself; the second one ends the process as it would without this.
/// </summary>
/// <remarks>Dispose it when the work is done; signals then act as before.</remarks>
public sealed class InterruptToken : IDisposable
{
    private readonly CancellationTokenSource _source = new();
    private readonly PosixSignalRegistration[] _registrations;

    /// <summary>Begins to listen.</summary>
    /// <param name="onInterrupt">Called at the first signal, before the token is cancelled, on a thread of its own; to tell the user, for example.</param>
    public InterruptToken(Action? onInterrupt = null)
    {
        void Handle(PosixSignalContext context)
        {
            if (_source.IsCancellationRequested) return;
            context.Cancel = true;
            onInterrupt?.Invoke();
            _source.Cancel();
        }
        _registrations = [PosixSignalRegistration.Create(PosixSignal.SIGINT, Handle), PosixSignalRegistration.Create(PosixSignal.SIGTERM, Handle)];
    }

    /// <summary>The token, for <c>LLaVATrainer.Train</c> and other long calls.</summary>
    public CancellationToken Token => _source.Token;

    /// <summary>Stops listening.</summary>
    public void Dispose()
    {
        foreach (var registration in _registrations) registration.Dispose();
        _source.Dispose();
    }
}
