namespace Peft.Core;

/// <summary>
/// What all adapted layers of one model share: the default of new passes, what is merged, and the pass that the present call belongs to. Scopes are
/// frames of the execution context: tasks inherit them, other calls do not see them.
/// </summary>
internal sealed class AdapterContext
{
    private readonly AsyncLocal<Frame?> _flow = new();
    private readonly PassGate _gate = new();
    private volatile AdapterPass _default = new();
    private volatile int _names;

    /// <summary>The active adapters of passes that begin without a choice of their own, in the order in which they are added up.</summary>
    public IReadOnlyList<string> Active
    {
        get => _default.Active;
        set => _default = _default with { Active = value };
    }

    /// <summary>The adapters that are merged into the base weights, in order.</summary>
    public List<string> Merged { get; } = [];

    /// <summary>The adapters that are merged, and are taken out for as long as somebody runs without adapters.</summary>
    public IReadOnlyList<string> Suspended { get; set; } = [];

    /// <summary>The dtype of the adapters' products.</summary>
    public AdapterPrecision Precision { get; set; }

    /// <summary>Where dropout masks come from.</summary>
    public IDropoutSource Dropout { get; set; } = new SeededDropout();

    /// <summary>The adapters there are.</summary>
    public required Func<IReadOnlyList<string>> Present { get; init; }

    /// <summary>Which adapters act in the present call.</summary>
    /// <exception cref="AdapterStateException">A scope chose them, and adapters have been merged since.</exception>
    /// <exception cref="AdapterNotFoundException">A scope chose them, and one has been deleted or renamed since.</exception>
    public AdapterPass Current
    {
        get
        {
            if (_flow.Value?.Pass is not { } pass) return _default;
            if (pass.IsChosen && Merged.Count > 0)
                throw new AdapterStateException($"Adapters {string.Join(", ", Merged)} were merged while a scope had other adapters chosen (WithAdapters, WithAdaptersBySample, WithoutAdapter); end the scope, or call Unmerge.");
            if (pass.Names != _names && pass.IsChosen && pass.Adapters.FirstOrDefault(a => !Present().Contains(a)) is { } gone)
                throw new AdapterNotFoundException(gone, [.. Present()]);
            return pass;
        }
    }

    /// <summary>Whether the present call is within a scope that chose its adapters.</summary>
    public bool IsChosen => _flow.Value?.Pass.IsChosen == true;

    /// <summary>Lets other adapters act in the present call, and in what it calls, until the scope is disposed.</summary>
    public IDisposable Enter(AdapterPass pass)
    {
        object key = new();
        _flow.Value = new Frame(key, pass, _flow.Value);
        return new AdapterScope(() => Leave(key));
    }

    /// <summary>A choice of adapters, made by the present call.</summary>
    public IDisposable Choose(Func<AdapterPass, AdapterPass> choice)
        => Enter(choice(_flow.Value?.Pass ?? _default) with { IsChosen = true, Names = _names });

    /// <summary>The value of the present call with nothing left open: it no longer depends on the model's settings.</summary>
    public AdapterPass Pinned()
    {
        var pass = Current;
        return pass.Dropout is not null && pass.Precision is not null ? pass
            : pass with { Precision = pass.Precision ?? Precision, Dropout = pass.Dropout ?? Dropout, Names = _names };
    }

    /// <summary>Begins a pass, unless the present call is within one.</summary>
    /// <param name="evaluation">Whether nothing is dropped.</param>
    public IDisposable? Begin(bool evaluation)
    {
        var under = Running;
        if (under is not null && (!evaluation || under.Pass.IsEvaluation)) return null;
        if (under is not null) return Enter(Pinned() with { IsEvaluation = true });
        var running = _gate.Pass();
        try
        {
            var pass = Pinned();
            var frame = new Frame(new object(), pass with { IsEvaluation = pass.IsEvaluation || evaluation }, _flow.Value) { Run = new Run() };
            _flow.Value = frame;
            return new AdapterScope(() =>
            {
                frame.Run.Ended = true;
                Leave(frame.Key);
                running.Dispose();
            });
        }
        catch
        {
            running.Dispose();
            throw;
        }
    }

    /// <summary>Keeps changes away while a choice is checked.</summary>
    public IDisposable? Reading() => Running is null ? _gate.Pass() : null;

    /// <summary>Begins a change of adapters or base weights, which waits for the passes that run elsewhere.</summary>
    /// <param name="what">What changes: the method's name.</param>
    /// <exception cref="AdapterStateException">The present call is within a pass, which would change under way.</exception>
    public IDisposable Change(string what)
    {
        if (Running is not null)
            throw new AdapterStateException($"{what} was called within a pass through the model (a callback of a generation?), whose adapters must not change under way; call it after the pass.");
        return _gate.Change();
    }

    /// <summary>Notes that adapters went or got other names: whoever chose some is checked again.</summary>
    public void NamesChanged() => _names++;

    // The frame of the pass that the present call is within. A task may outlive the pass that it inherited.
    private Frame? Running
    {
        get
        {
            for (var frame = _flow.Value; frame is not null; frame = frame.Below)
                if (frame.Run is { Ended: false }) return _flow.Value;
            return null;
        }
    }

    // Scopes need not end in the order of a stack; one that ends elsewhere than it began changes nothing there.
    private void Leave(object key)
    {
        for (var frame = _flow.Value; frame is not null; frame = frame.Below)
        {
            if (frame.Key != key) continue;
            _flow.Value = Without(_flow.Value!, key);
            return;
        }
    }

    private static Frame? Without(Frame frame, object key) => frame.Key == key ? frame.Below : frame with { Below = Without(frame.Below!, key) };

    private sealed record Frame(object Key, AdapterPass Pass, Frame? Below)
    {
        public Run? Run { get; init; }
    }

    private sealed class Run
    {
        public volatile bool Ended;
    }
}
