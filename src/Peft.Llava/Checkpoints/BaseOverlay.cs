using Peft.Core;

namespace Peft.Llava;

/// <summary>What a run's folder holds of a model beside its base: the projector, <c>image_newline</c>, perhaps the embedding; and where its tower may be.</summary>
internal sealed class BaseOverlay : IDisposable
{
    private const string PeftPrefix = "base_model.model.";
    private const ModelPart Parts = ModelPart.Projector | ModelPart.ImageNewline | ModelPart.Embedding | ModelPart.Head;
    private readonly ITensorReader? _reader;

    private BaseOverlay(string folder, ITensorReader? reader, IReadOnlyDictionary<string, string> keys) => (Folder, _reader, Keys) = (folder, reader, keys);

    public string Folder { get; }

    /// <summary>The file's keys by the names in the model.</summary>
    public IReadOnlyDictionary<string, string> Keys { get; }

    public ITensorReader? File => _reader;

    public ITensorReader Reader => _reader!;

    /// <summary>The file beside an adapter, or that of stage 1; an adapter alone may have none.</summary>
    public static BaseOverlay Open(string folder, string? file)
    {
        if (file is null) return new BaseOverlay(folder, null, new Dictionary<string, string>());
        var reader = TensorFiles.Open(file);
        var keys = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string key in reader.Entries.Keys)
        {
            string name = key.StartsWith(PeftPrefix, StringComparison.Ordinal) ? key[PeftPrefix.Length..] : key;
            // A file of stage 1 may have its names without "model.".
            if (name.StartsWith("mm_projector.", StringComparison.Ordinal)) name = "model." + name;
            if (Parts.HasFlag(LlavaModel.PartOf(name))) keys[name] = key;
        }
        return new BaseOverlay(folder, reader, keys);
    }

    public void Dispose() => _reader?.Dispose();
}
