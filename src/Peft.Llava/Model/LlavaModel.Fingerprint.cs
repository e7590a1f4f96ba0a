using Peft.Core;

namespace Peft.Llava;

public sealed partial class LlavaModel : IFingerprintedBase
{
    /// <summary>
    /// The fingerprint of the weights in the checkpoint (see <see cref="SampledFingerprint"/>), under this library's names: the same for both layouts and
    /// whatever dtype or quantisation they were loaded with. Null for a model that was not loaded, or whose weights a merge has changed.
    /// </summary>
    public string? BaseFingerprint { get; internal set; }

    /// <inheritdoc/>
    public void ForgetFingerprint() => BaseFingerprint = null;
}
