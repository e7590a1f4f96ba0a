namespace Peft.Core;

/// <content>Which adapters act in the calls of one scope.</content>
public sealed partial class PeftModel
{
    private int _withoutMerged;

    /// <summary>
    /// Switches all adapters off for the present call until the scope is disposed. Merged ones are taken out of the base for that time, for all calls.
    /// </summary>
    /// <returns>The scope; it flows with the call, into tasks too. Dispose it in the call that opened it.</returns>
    /// <exception cref="AdapterStateException">Adapters are merged, and the call is within a pass through the model.</exception>
    public IDisposable WithoutAdapter()
    {
        Check();
        bool suspends = SuspendMerged();
        var scope = _context.Choose(pass => pass with { Enabled = false, Samples = null });
        return new AdapterScope(() =>
        {
            scope.Dispose();
            if (suspends) ResumeMerged();
        });
    }

    /// <summary>
    /// Makes other adapters the active ones for the present call until the scope is disposed, for all samples alike. Which are trained does not change.
    /// </summary>
    /// <param name="adapters">Their names, in the order in which they are added up.</param>
    /// <returns>The scope; it flows with the call, into tasks too. Dispose it in the call that opened it.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">Adapters are merged, or one is named twice.</exception>
    public IDisposable WithAdapters(params IReadOnlyList<string> adapters)
    {
        Check();
        using var reading = _context.Reading();
        CheckActivation(adapters);
        List<string> names = [.. adapters];
        return _context.Choose(pass => pass with { Active = names, Enabled = true, Samples = null });
    }

    /// <summary>Gives each sample of a batch an adapter of its own, for the present call until the scope is disposed.</summary>
    /// <param name="adapters">A name for each sample; <c>__base__</c> for none.</param>
    /// <param name="lengths">
    /// The rows of each sample, if the model works on the packed rows of all samples and does not say so itself (<see cref="IAdapterRouted"/>, as
    /// LLaVA's model does); otherwise null.
    /// </param>
    /// <returns>The scope; it flows with the call, into tasks too. Dispose it in the call that opened it.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">Adapters are merged, or one of these uses DoRA.</exception>
    public IDisposable WithAdaptersBySample(IReadOnlyList<string> adapters, IReadOnlyList<long>? lengths = null)
    {
        Check();
        ArgumentNullException.ThrowIfNull(adapters);
        using var reading = _context.Reading();
        if (MergedOrSuspended.Count > 0) throw new AdapterStateException("Adapters by sample cannot be used while adapters are merged; call Unmerge first.");
        if (lengths is not null && lengths.Count != adapters.Count)
            throw new AdapterStateException($"{adapters.Count} adapter names were given, but {lengths.Count} lengths; give one of each for every sample.");
        foreach (string adapter in adapters.Where(a => a != SampleAdapters.Base).Distinct())
        {
            var config = ConfigOf(adapter);
            if (config.UseDora) throw new AdapterStateException($"Adapter '{adapter}' uses DoRA, which cannot be mixed by sample; run its samples as a batch of their own.");
        }
        var samples = new SampleAdapters([.. adapters], lengths);
        return _context.Choose(pass => pass with { Samples = samples, Enabled = true });
    }

    // Merged adapters count as merged while somebody runs without adapters: they come back at its end.
    private IReadOnlyList<string> MergedOrSuspended => _context.Merged.Count > 0 ? _context.Merged : _context.Suspended;

    private void CheckActivation(IReadOnlyList<string> adapters)
    {
        foreach (string adapter in adapters) ConfigOf(adapter);
        if (adapters.Distinct().Count() != adapters.Count) throw new AdapterStateException($"An adapter can be active only once: {string.Join(", ", adapters)}.");
        if (MergedOrSuspended.Count > 0) throw new AdapterStateException($"Adapters {string.Join(", ", MergedOrSuspended)} are merged; call Unmerge before activating others.");
        CheckTogether(adapters);
    }

    /// <summary>Begins a change of adapters or base weights.</summary>
    /// <param name="name">The method's name.</param>
    private IDisposable Change([System.Runtime.CompilerServices.CallerMemberName] string name = "")
    {
        Check();
        return _context.Change(name);
    }

    // A scope would go on with adapters that are merged, deleted or renamed.
    private void CheckNotChosen(string what, Func<string, bool>? adapter = null)
    {
        if (_context.IsChosen && (adapter is null || _context.Current.Adapters.Any(adapter)))
            throw new AdapterStateException($"{what} was called within WithAdapters, WithAdaptersBySample or WithoutAdapter, whose adapters it would change; call it after the scope.");
    }

    private bool SuspendMerged()
    {
        if (MergedOrSuspended.Count == 0) return false;
        using var change = Change(nameof(WithoutAdapter));
        if (MergedOrSuspended.Count == 0) return false;
        if (_context.Merged.Count > 0)
        {
            List<string> merged = [.. _context.Merged];
            TakeOut();
            _context.Suspended = merged;
        }
        _withoutMerged++;
        return true;
    }

    private void ResumeMerged()
    {
        if (_disposed) return;
        using var change = Change(nameof(WithoutAdapter));
        if (--_withoutMerged > 0) return;
        List<string> merged = [.. _context.Suspended];
        _context.Suspended = [];
        if (merged.Count > 0) MergeInto(merged, _safelyMerged);
    }
}
