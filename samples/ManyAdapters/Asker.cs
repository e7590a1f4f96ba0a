using Peft.Core;
using Peft.Llava;

namespace ManyAdapters;

/// <summary>Asks questions in one batch; the pictures are decoded once.</summary>
internal sealed class Asker(LlavaModel model, SampleEncoder encoder, CancellationToken stop) : IDisposable
{
    private const int LongestAnswer = 24;
    private readonly LlavaBatchBuilder _builder = new(model.Config);
    private readonly Dictionary<string, IReadOnlyList<ImageTiles>> _pictures = [];

    /// <summary>Asks with whatever is active on the model.</summary>
    public IReadOnlyList<string> Ask(IReadOnlyList<LlavaSample> questions) => Generate(questions, null, null);

    /// <summary>Asks each question of an adapter of its own, <c>__base__</c> being none.</summary>
    public IReadOnlyList<string> Ask(IReadOnlyList<LlavaSample> questions, PeftModel peft, IReadOnlyList<string> adapters) => Generate(questions, peft, adapters);

    public void Dispose()
    {
        foreach (var picture in _pictures.Values.SelectMany(p => p)) picture.Pixels.Dispose();
    }

    private List<string> Generate(IReadOnlyList<LlavaSample> questions, PeftModel? peft, IReadOnlyList<string>? adapters)
    {
        using var batch = _builder.Build([.. questions.Select(Prompt)]);
        using var scope = adapters is null ? null : peft!.WithAdaptersBySample(adapters);
        var result = new TextGenerator(model).Generate(batch, new GenerationOptions { MaxNewTokens = LongestAnswer }, stop);
        return [.. result.TokenIds.Select(ids => encoder.Processor.Tokenizer.Decode(ids, new DecodeOptions { SkipSpecialTokens = true }).Trim())];
    }

    private LlavaBatchSample Prompt(LlavaSample sample)
    {
        var processor = encoder.Processor;
        var turn = MultimodalText.Prepare([sample.Turns[0]], processor.Template)[0];
        string prompt = new Conversation(processor.Template).User(turn.Value).Assistant(null).Render().Text;
        if (!_pictures.TryGetValue(sample.Images[0], out var picture)) _pictures[sample.Images[0]] = picture = encoder.EncodeImages(sample);
        return new LlavaBatchSample(sample.Id, [.. processor.Tokenizer.TokenizeWithImages(prompt).Ids.Select(id => (long)id)], null, picture);
    }
}
