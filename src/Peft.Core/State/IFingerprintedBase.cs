namespace Peft.Core;

/// <summary>A model that knows which weights it was loaded with, so that adapters say what base they were made on and are refused on another one.</summary>
public interface IFingerprintedBase
{
    /// <summary>The fingerprint of the base's weights as they were loaded (see <see cref="SampledFingerprint"/>); null if it is not known.</summary>
    string? BaseFingerprint { get; }

    /// <summary>Called when the weights have been changed for good, by a merge: they are no longer what the fingerprint says.</summary>
    void ForgetFingerprint();
}
