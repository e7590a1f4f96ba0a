using System.Text.Json;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Training data from the recorded ids, labels and pixel values: no tokenizer and no picture takes part.</summary>
internal sealed class RecordedSamples : ITrainingData, IDisposable
{
    private readonly SafetensorsReader _text;
    private readonly SafetensorsReader _pixels;
    private readonly LlavaBatchBuilder _builder;
    private readonly string _version;
    private readonly int _maxLength;
    private readonly List<(string Id, string? Image)> _samples;

    public RecordedSamples(string areaFolder, string version, string dataPath, LlavaConfig config, int maxLength, LlavaBatchOptions? options = null, IEnumerable<string>? ids = null)
    {
        _text = SafetensorsReader.Open(Path.Combine(areaFolder, "samples", "expected.safetensors"));
        _pixels = SafetensorsReader.Open(Path.Combine(areaFolder, "samples", "pixel_values.safetensors"));
        _builder = new LlavaBatchBuilder(config, options);
        _version = version;
        _maxLength = maxLength;
        using var data = JsonDocument.Parse(File.ReadAllBytes(dataPath));
        var all = data.RootElement.EnumerateArray().ToList();
        _samples = [.. all.Select(e => (e.GetProperty("id").GetString()!, e.TryGetProperty("image", out var image) ? image.GetString() : null))];
        var lengths = all.Select(e => e.GetProperty("conversations").EnumerateArray()
            .Sum(t => t.GetProperty("value").GetString()!.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Length)).ToList();
        ModalityLengths = [.. lengths.Select((l, i) => _samples[i].Image is null ? -l : l)];
        if (ids is null) return;
        var place = _samples.Select((s, i) => (s.Id, i)).ToDictionary(p => p.Id, p => p.i);
        var order = ids.Select(id => place[id]).ToList();
        ModalityLengths = [.. order.Select(i => ModalityLengths[i])];
        _samples = [.. order.Select(i => _samples[i])];
    }

    public int Count => _samples.Count;

    public IReadOnlyList<int> ModalityLengths { get; }

    public string IdOf(int index) => _samples[index].Id;

    public static bool Has(string areaFolder, string version, string dataPath)
    {
        using var text = SafetensorsReader.Open(Path.Combine(areaFolder, "samples", "expected.safetensors"));
        using var data = JsonDocument.Parse(File.ReadAllBytes(dataPath));
        return data.RootElement.EnumerateArray().All(e => text.Entries.ContainsKey($"{version}/{e.GetProperty("id").GetString()}/input_ids"));
    }

    public LlavaBatch Batch(IReadOnlyList<int> indices)
    {
        using var scope = NewDisposeScope();
        return _builder.Build([.. indices.Select(Sample)]);
    }

    public LlavaBatchSample Sample(int index)
    {
        var (id, image) = _samples[index];
        var ids = Read($"{_version}/{id}/input_ids");
        var labels = Read($"{_version}/{id}/labels");
        return new LlavaBatchSample(id, ids, labels, image is null || !ids.Contains(-200L) ? [] : [new ImageTiles(_pixels.Load(image).unsqueeze(0), new ImageSize(1, 1))]);
    }

    public void Dispose()
    {
        _text.Dispose();
        _pixels.Dispose();
    }

    private List<long> Read(string name)
    {
        using var loaded = _text.Load(name);
        using var wide = loaded.to(ScalarType.Int64);
        return [.. wide.data<long>().Take(_maxLength)];
    }
}
