using Peft.Core;

namespace Peft.Llava;

/// <summary>A checkpoint and the model its configuration describes do not fit. All faults are told at once; nothing was built.</summary>
public sealed class CheckpointMismatchException : PeftException
{
    private const int Shown = 8;

    /// <summary>Creates the exception.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="missing">Tensors the model needs and the checkpoint lacks.</param>
    /// <param name="unexpected">Tensors the checkpoint holds and the model has no place for.</param>
    /// <param name="shapes">One sentence per tensor of another shape.</param>
    /// <param name="advice">What to do about it, a sentence; null for the usual one.</param>
    public CheckpointMismatchException(
        string source, IReadOnlyList<string> missing, IReadOnlyList<string> unexpected, IReadOnlyList<string> shapes, string? advice = null)
        : base($"{source}: {missing.Count + unexpected.Count + shapes.Count} tensor(s) do not fit the model that the configuration describes."
            + List("missing", missing) + List("unexpected", unexpected) + List("shape", shapes)
            + "\n" + (advice ?? "Check that config.json and weights belong together and that no shard is missing."))
    {
        SourceFile = source;
        MissingTensors = missing;
        UnexpectedTensors = unexpected;
        ShapeFaults = shapes;
    }

    /// <summary>The checkpoint.</summary>
    public string SourceFile { get; }

    /// <summary>Tensors the model needs and the checkpoint lacks.</summary>
    public IReadOnlyList<string> MissingTensors { get; }

    /// <summary>Tensors the checkpoint holds and the model has no place for.</summary>
    public IReadOnlyList<string> UnexpectedTensors { get; }

    /// <summary>One sentence per tensor of another shape.</summary>
    public IReadOnlyList<string> ShapeFaults { get; }

    private static string List(string kind, IReadOnlyList<string> items)
        => string.Concat(items.Take(Shown).Select(i => $"\n  {kind}: {i}"))
            + (items.Count > Shown ? $"\n  {kind}: and {items.Count - Shown} more" : "");
}
