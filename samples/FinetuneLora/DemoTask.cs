namespace FinetuneLora;

/// <summary>One task of the sample data, with its settings.</summary>
/// <remarks>
/// Chosen on a quarter of the training pictures, never on the held-out ones: the projector at a tenth of the adapter's rate, as in LLaVA's own scripts, and
/// batches of 8 make results depend less on the seed than one rate and batches of 16 do.
/// </remarks>
/// <param name="Name">The adapter's name.</param>
/// <param name="TrainingFile">What it learns from.</param>
/// <param name="HeldOutFile">Questions about pictures that the training file does not show.</param>
/// <param name="Epochs">Passes over the training file.</param>
internal sealed record DemoTask(string Name, string TrainingFile, string HeldOutFile, double Epochs)
{
    public const int BatchSize = 8;
    public const double LearningRate = 2e-3;
    public const double ProjectorLearningRate = LearningRate / 10;

    public static DemoTask Card { get; } = new("card", "card_train.json", "card_heldout.json", 4);

    public static DemoTask Sort { get; } = new("sort", "sort_train.json", "sort_heldout.json", 5);
}
