namespace Peft.Core;

/// <summary>
/// Lets any number of passes run at the same time, and a change of the adapters only while none does: a change waits for the passes that run, passes
/// that come later wait for it.
/// </summary>
internal sealed class PassGate
{
    private readonly object _gate = new();
    private int _passes;
    private int _waiting;
    private int _changes;
    private Thread? _changing;

    /// <summary>Begins a pass.</summary>
    /// <returns>Disposing it ends the pass.</returns>
    public IDisposable Pass()
    {
        lock (_gate)
        {
            while (_changing != Thread.CurrentThread && (_changing is not null || _waiting > 0)) Monitor.Wait(_gate);
            _passes++;
        }
        return new AdapterScope(() =>
        {
            lock (_gate)
            {
                _passes--;
                Monitor.PulseAll(_gate);
            }
        });
    }

    /// <summary>Begins a change; one within another one of the same thread is part of it.</summary>
    /// <returns>Disposing it ends the change.</returns>
    public IDisposable Change()
    {
        lock (_gate)
        {
            if (_changing != Thread.CurrentThread)
            {
                _waiting++;
                while (_changing is not null || _passes > 0) Monitor.Wait(_gate);
                _waiting--;
                _changing = Thread.CurrentThread;
            }
            _changes++;
        }
        return new AdapterScope(() =>
        {
            lock (_gate)
            {
                if (--_changes > 0) return;
                _changing = null;
                Monitor.PulseAll(_gate);
            }
        });
    }
}
