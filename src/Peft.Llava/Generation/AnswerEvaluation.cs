namespace Peft.Llava;

/// <summary>
/// Asks a model the first question of each sample and sets its greedy answer beside the sample's own. Pictures are decoded once and kept, so the
/// same questions can be asked again before, during and after a training.
/// </summary>
/// <remarks>Not for use by several threads at once.</remarks>
public sealed class AnswerEvaluation : IDisposable
{
    private readonly LlavaDataset _data;
    private readonly AnswerEvaluationOptions _options;
    private readonly List<Question> _questions = [];

    /// <summary>Takes the questions.</summary>
    /// <param name="data">The samples; the first turn of each is the question, the second the expected answer.</param>
    /// <param name="options">How they are asked; null for the defaults.</param>
    /// <exception cref="ConversationException">A sample has no question or no answer.</exception>
    public AnswerEvaluation(LlavaDataset data, AnswerEvaluationOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(data);
        _data = data;
        _options = options ?? new AnswerEvaluationOptions();
        var template = data.Encoder.Processor.Template;
        foreach (var sample in data.Samples)
        {
            if (sample.Turns.Count < 2)
            {
                throw new ConversationException(template.Name, $"sample '{sample.Id}' has {sample.Turns.Count} turn(s), and an evaluation needs a question and its answer",
                    "Add the answer, or leave the sample out.");
            }
        }
    }

    /// <summary>Asks all questions, without adding anything to a training's random numbers.</summary>
    /// <param name="model">The model; adapters that are on it take part. It is in the mode it was in afterwards.</param>
    /// <param name="cancellation">Asked before every token.</param>
    /// <returns>One answer per sample, in the order of the data.</returns>
    /// <exception cref="SampleException">A sample's picture cannot be used.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public IReadOnlyList<EvaluatedAnswer> Run(LlavaModel model, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        if (_questions.Count == 0) _questions.AddRange(_data.Samples.Select(Encode));
        var builder = new LlavaBatchBuilder(model.Config);
        var generator = new TextGenerator(model);
        var tokenizer = _data.Encoder.Processor.Tokenizer;
        var generation = new GenerationOptions { MaxNewTokens = _options.MaxNewTokens };
        var answers = new List<EvaluatedAnswer>(_questions.Count);
        foreach (var part in _questions.Chunk(_options.BatchSize))
        {
            using var batch = builder.Build([.. part.Select(q => q.Prompt)]);
            var result = generator.Generate(batch, generation, cancellation);
            for (int i = 0; i < part.Length; i++)
            {
                string text = tokenizer.Decode(result.TokenIds[i], new DecodeOptions { SkipSpecialTokens = true });
                answers.Add(new EvaluatedAnswer(part[i].Sample, part[i].Sample.Turns[1].Value, text.Trim()));
            }
        }
        return answers;
    }

    private Question Encode(LlavaSample sample)
    {
        var processor = _data.Encoder.Processor;
        var turn = sample.HasImage
            ? MultimodalText.Prepare([sample.Turns[0]], processor.Template, _data.Encoder.UsesImageStartEnd, keepPlaces: sample.Images.Count > 1)[0]
            : sample.Turns[0];
        string prompt = new Conversation(processor.Template).User(turn.Value).Assistant(null).Render().Text;
        var ids = sample.HasImage ? processor.Tokenizer.TokenizeWithImages(prompt).Ids : processor.Tokenizer.Encode(prompt);
        return new Question(sample, new LlavaBatchSample(sample.Id, [.. ids.Select(id => (long)id)], null, _data.Encoder.EncodeImages(sample)));
    }

    /// <summary>Releases the pictures.</summary>
    public void Dispose()
    {
        foreach (var image in _questions.SelectMany(q => q.Prompt.Images)) image.Pixels.Dispose();
        _questions.Clear();
    }

    private sealed record Question(LlavaSample Sample, LlavaBatchSample Prompt);
}

/// <summary>How <see cref="AnswerEvaluation"/> asks.</summary>
public sealed record AnswerEvaluationOptions
{
    /// <summary>Questions asked at a time.</summary>
    public int BatchSize { get; init; } = 64;

    /// <summary>The most tokens of an answer.</summary>
    public int MaxNewTokens { get; init; } = 64;
}

/// <summary>One answer.</summary>
/// <param name="Sample">The sample.</param>
/// <param name="Expected">The sample's own answer.</param>
/// <param name="Answer">The model's, without special tokens and outer blanks.</param>
public sealed record EvaluatedAnswer(LlavaSample Sample, string Expected, string Answer)
{
    /// <summary>Whether the two are the same text, outer blanks aside.</summary>
    public bool IsExact => string.Equals(Expected.Trim(), Answer, StringComparison.Ordinal);
}
