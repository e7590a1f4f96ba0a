using System.Globalization;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>One parameter that was cast.</summary>
/// <param name="Name">Its path in memory.</param>
/// <param name="From">Its dtype before.</param>
/// <param name="To">Its dtype now.</param>
/// <param name="AddedBytes">Bytes it takes more; negative if less.</param>
public sealed record CastParameter(string Name, ScalarType From, ScalarType To, long AddedBytes);

/// <summary>What a preparation did.</summary>
/// <param name="Cast">The parameters that were cast.</param>
/// <param name="Frozen">How many parameters were made frozen that were trained before.</param>
/// <param name="GradientCheckpointing">Whether gradient checkpointing is on.</param>
public sealed record PreparationReport(IReadOnlyList<CastParameter> Cast, int Frozen, bool GradientCheckpointing)
{
    /// <summary>Bytes that the casts added.</summary>
    public long AddedBytes => Cast.Sum(c => c.AddedBytes);

    /// <summary>One line.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{Cast.Count} parameters cast ({AddedBytes:+#,0;-#,0;0} bytes), {Frozen} frozen, gradient checkpointing {(GradientCheckpointing ? "on" : "off")}");
}
