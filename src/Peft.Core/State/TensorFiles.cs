namespace Peft.Core;

/// <summary>Opens files of tensors by what is in them, never by what they are called.</summary>
public static class TensorFiles
{
    // In the order in which transformers looks for them.
    private static readonly string[] ModelFiles = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

    /// <summary>Opens a file (safetensors, PyTorch, or the index of several files), or the model in a folder.</summary>
    /// <param name="path">
    /// The file, or a folder with one of <c>model.safetensors</c>, <c>model.safetensors.index.json</c>, <c>pytorch_model.bin</c> and
    /// <c>pytorch_model.bin.index.json</c> (the first of these is taken).
    /// </param>
    /// <returns>A reader; the caller disposes it. Tensors read from it stay valid after that.</returns>
    /// <exception cref="TensorFileNotFoundException">There is no such file, or no model in the folder.</exception>
    /// <exception cref="TensorFileException">The file is damaged or malformed, or asks for more than tensors.</exception>
    public static ITensorReader Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return Directory.Exists(path) ? OpenFolder(path) : OpenFile(path, allowIndex: true);
    }

    internal static ITensorReader OpenFile(string path, bool allowIndex)
    {
        byte[] start;
        using (var file = new TensorFile(path)) start = file.Read(0, 32);
        var bytes = start.AsSpan();
        if (bytes.StartsWith("version https://git-lfs"u8))
            throw new TensorFileNotFoundException(path, "is a pointer of Git LFS and not the file itself", "Fetch the file: git lfs pull.");
        // First, because the length of a safetensors header can begin like anything: 640 bytes look like a pickle.
        if (bytes is [_, _, _, _, _, 0, 0, 0, (byte)'{', ..]) return SafetensorsReader.Open(path);
        if (bytes.StartsWith("PK"u8) || bytes is [0x80, <= 5, ..]) return PickleReader.Open(path);
        return allowIndex && bytes is [(byte)'{', ..] ? ShardedCheckpoint.Open(path) : SafetensorsReader.Open(path);
    }

    private static ITensorReader OpenFolder(string folder)
    {
        string? file = ModelFiles.Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
        if (file is not null) return OpenFile(file, allowIndex: true);
        var others = Directory.EnumerateFiles(folder).Select(name => Path.GetFileName(name)!).Order(StringComparer.Ordinal).ToList();
        string found = others.Count == 0 ? "no files" : string.Join(", ", others.Take(8)) + (others.Count > 8 ? ", …" : "");
        throw new TensorFileNotFoundException(
            folder, $"holds no model ({string.Join(", ", ModelFiles)}), but {found}", "Check the folder, or name the file itself.");
    }
}
