namespace Peft.Core;

/// <summary>Puts back, once, what was switched.</summary>
internal sealed class AdapterScope(Action restore) : IDisposable
{
    private Action? _restore = restore;

    public void Dispose()
    {
        _restore?.Invoke();
        _restore = null;
    }
}
