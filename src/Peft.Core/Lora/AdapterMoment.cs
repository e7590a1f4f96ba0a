namespace Peft.Core;

/// <summary>What acted in a call, see <see cref="AdapterRouting.Now"/>.</summary>
public sealed class AdapterMoment
{
    internal AdapterMoment(AdapterPass pass) => Pass = pass;

    internal AdapterPass Pass { get; }
}
