using Peft.Testing;

namespace Peft.Llava.Tests.Data;

/// <summary>A tiny processor, and a folder with pictures and a data file.</summary>
internal sealed class TinyData : IDisposable
{
    public TinyData()
    {
        Directory.CreateDirectory(Images);
        string source = Path.Combine(Repository.Root, "tests", "goldens", "training", "common", "data", "images");
        Pictures = [.. Directory.EnumerateFiles(source, "*.png").Order(StringComparer.Ordinal).Take(4).Select(f => Path.GetFileName(f))];
        foreach (string name in Pictures) System.IO.File.Copy(Path.Combine(source, name), Path.Combine(Images, name));
    }

    public string Folder { get; } = Directory.CreateTempSubdirectory("data").FullName;

    public string Images => Path.Combine(Folder, "images");

    public IReadOnlyList<string> Pictures { get; }

    public static LlamaTokenizer Tokenizer { get; } = LlamaTokenizer.FromFolder(
        Path.Combine(Repository.Root, "tests", "goldens", "text", "tokenizers", "tiny")).WithPadToken("<unk>");

    public static LlavaProcessor Processor { get; } = new(Tokenizer, new ClipImageProcessor(ImageProcessorConfig.Clip(14), AspectPolicy.Pad));

    public string File(string name, string text)
    {
        string path = Path.Combine(Folder, name);
        System.IO.File.WriteAllText(path, text);
        return path;
    }

    public SampleEncoder Encoder(DataOptions? options = null, LlavaProcessor? processor = null) => new(processor ?? Processor, Images, options);

    /// <summary>A sample with a question and an answer.</summary>
    public static LlavaSample Sample(int index, string question, string answer, params string[] images)
        => new(index, $"s{index}", images, [new("human", question), new("gpt", answer)]);

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
