using System.Globalization;
using System.Text;

namespace Peft.Llava;

/// <summary>What a run from flags would do, told without a weight being read: see <see cref="LlavaRecipe.DryRun"/>.</summary>
/// <param name="Notes">What becomes of each flag, once base and tower are known.</param>
/// <param name="Base">The base's folder, in full.</param>
/// <param name="VisionTower">The folder that the tower comes from, or null where the base holds it or has none.</param>
/// <param name="Projector">The file that the projector comes from, or null for the base's own or a new one.</param>
/// <param name="Checkpoint">The checkpoint that the run would go on from, or null.</param>
/// <param name="Samples">The number of samples.</param>
/// <param name="Steps">The steps of the whole training.</param>
/// <param name="Memory">The memory that it would take.</param>
public sealed record DryRunReport(
    IReadOnlyList<FlagNote> Notes, string Base, string? VisionTower, string? Projector, string? Checkpoint, int Samples, int Steps, MemoryEstimate Memory)
{
    /// <summary>All of it, a line each.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        foreach (var note in Notes) text.Append(CultureInfo.InvariantCulture, $"{note}\n");
        text.Append(CultureInfo.InvariantCulture, $"base: {Base}\nvision tower: {VisionTower ?? "the base's"}\nprojector: {Projector ?? "the base's, or a new one if it has none"}\n");
        text.Append(CultureInfo.InvariantCulture, $"begins: {(Checkpoint is null ? "anew" : $"from {Checkpoint}")}\n{Samples} samples, {Steps} steps\n{Memory}");
        return text.ToString();
    }
}
