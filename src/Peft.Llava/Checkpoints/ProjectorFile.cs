using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// The file of LLaVA's first stage, <c>mm_projector.bin</c>: the projector's tensors under <c>model.mm_projector.</c>, and the whole embedding where
/// start and end ids were trained with it.
/// </summary>
public static class ProjectorFile
{
    private const string Marker = "mm_projector.";

    /// <summary>Where LLaVA puts the file of an output folder: in it, but beside its checkpoints (<c>mm_projector/checkpoint-24.bin</c>).</summary>
    /// <param name="outputFolder">The folder, perhaps one named <c>checkpoint-N</c>.</param>
    /// <returns>The file's path.</returns>
    public static string PathFor(string outputFolder)
    {
        ArgumentException.ThrowIfNullOrEmpty(outputFolder);
        string trimmed = Path.TrimEndingDirectorySeparator(outputFolder);
        string name = Path.GetFileName(trimmed);
        return name.StartsWith("checkpoint-", StringComparison.Ordinal)
            ? Path.Combine(Path.GetDirectoryName(trimmed) ?? "", "mm_projector", name + ".bin")
            : Path.Combine(outputFolder, "mm_projector.bin");
    }

    /// <summary>Puts a file's projector into a model. All is compared before anything changes.</summary>
    /// <param name="model">The model; its projector's dtype stays.</param>
    /// <param name="path">The file, PyTorch or safetensors. Names without <c>mm_projector.</c> are passed over.</param>
    /// <exception cref="CheckpointMismatchException">Tensors are missing, unexpected, or of another shape; nothing has changed.</exception>
    public static void Load(LlavaModel model, string path)
    {
        ArgumentNullException.ThrowIfNull(model);
        using var reader = TensorFiles.Open(path);
        var own = model.Parameters(ModelPart.Projector).ToDictionary(p => KeyOf(p.Name)!, p => p.Parameter);
        var given = reader.Entries.Keys.Where(k => KeyOf(k) is not null).ToDictionary(k => KeyOf(k)!);
        var faults = new CheckpointFaults();
        foreach (var (key, parameter) in own)
        {
            if (!given.TryGetValue(key, out string? name)) faults.Missing(Marker + key);
            else faults.CheckShape(name, parameter.shape, reader.Entries[name].Shape);
        }
        foreach (string key in given.Keys.Except(own.Keys)) faults.Unexpected(given[key]);
        faults.ThrowIfAny(path);
        using var noGrad = no_grad();
        foreach (var (key, parameter) in own)
        {
            using var tensor = reader.Load(given[key]);
            parameter.copy_(tensor);
        }
    }

    /// <summary>A projector tensor's own name: what follows <c>mm_projector.</c>.</summary>
    private static string? KeyOf(string name)
    {
        int at = name.IndexOf(Marker, StringComparison.Ordinal);
        return at < 0 ? null : name[(at + Marker.Length)..];
    }
}
