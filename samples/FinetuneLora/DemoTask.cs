namespace FinetuneLora;

/// <summary>One task of the sample data, with the settings that the Python peers were measured with.</summary>
/// <param name="Name">The adapter's name.</param>
/// <param name="TrainingFile">What it learns from.</param>
/// <param name="HeldOutFile">Questions about pictures that the training file does not show.</param>
/// <param name="LearningRate">The rate.</param>
/// <param name="Epochs">Passes over the training file.</param>
internal sealed record DemoTask(string Name, string TrainingFile, string HeldOutFile, double LearningRate, double Epochs)
{
    public static DemoTask Card { get; } = new("card", "card_train.json", "card_heldout.json", 2e-3, 4);

    public static DemoTask Sort { get; } = new("sort", "sort_train.json", "sort_heldout.json", 3e-3, 5);
}
