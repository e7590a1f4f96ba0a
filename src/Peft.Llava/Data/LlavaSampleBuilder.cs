namespace Peft.Llava;

/// <summary>
/// Builds a sample turn by turn, without JSON: <c>new LlavaSampleBuilder("cat-1").User("What is this?", "cat.jpg").Assistant("A cat.").Build()</c>.
/// </summary>
public sealed class LlavaSampleBuilder
{
    private readonly string _id;
    private readonly List<string> _images = [];
    private readonly List<ConversationTurn> _turns = [];

    /// <summary>Begins a sample.</summary>
    /// <param name="id">Its id: what reports and exceptions call it.</param>
    /// <exception cref="ArgumentException">The id is empty.</exception>
    public LlavaSampleBuilder(string id)
    {
        ArgumentException.ThrowIfNullOrEmpty(id);
        _id = id;
    }

    /// <summary>Adds what the user says.</summary>
    /// <param name="text">
    /// The text. If it has no <c>&lt;image&gt;</c> placeholder, one per image is put in front, each on a line of its own, as LLaVA's data has it; a
    /// text with placeholders is taken as it is.
    /// </param>
    /// <param name="images">The files of the images that come with it, in the order of their placeholders.</param>
    /// <returns>This builder.</returns>
    public LlavaSampleBuilder User(string text, params IReadOnlyList<string> images)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(images);
        bool placed = text.Contains(LlamaTokenizer.ImagePlaceholder, StringComparison.Ordinal);
        string front = placed ? "" : string.Concat(Enumerable.Repeat(LlamaTokenizer.ImagePlaceholder + "\n", images.Count));
        _images.AddRange(images);
        _turns.Add(new ConversationTurn("human", front + text));
        return this;
    }

    /// <summary>Adds what the model is to say: the part that is learned.</summary>
    /// <param name="text">The text.</param>
    /// <returns>This builder.</returns>
    public LlavaSampleBuilder Assistant(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        _turns.Add(new ConversationTurn("gpt", text));
        return this;
    }

    /// <summary>The sample.</summary>
    /// <param name="index">Its place in the data set, for messages.</param>
    /// <returns>A sample that later calls of this builder do not change.</returns>
    /// <exception cref="SampleException">
    /// It has no turns, does not end with the model's, speakers do not alternate, a turn or a file name is empty, or placeholders and images are
    /// not as many.
    /// </exception>
    public LlavaSample Build(int index = 0)
    {
        var sample = new LlavaSample(index, _id, [.. _images], [.. _turns]);
        if (_turns.Count == 0 || _turns[^1].From != "gpt")
            throw new SampleException(SampleProblem.NothingSupervised, sample, "does not end with an answer, which is what is learned.", "Call Assistant last.");
        if (_images.Any(string.IsNullOrEmpty))
            throw new SampleException(SampleProblem.MissingImage, sample, "has an image with an empty file name.", "Name the file, or leave the image out.");
        try
        {
            RecordCheck.Check(sample, RecordChecks.Default);
        }
        catch (MalformedRecord e)
        {
            var problem = e.Kind == RecordProblem.PlaceholderCount ? SampleProblem.PlaceholderCount : SampleProblem.Conversation;
            throw new SampleException(problem, sample, e.Message + ".", "Correct the calls of User and Assistant.", innerException: e);
        }
        return sample;
    }
}
