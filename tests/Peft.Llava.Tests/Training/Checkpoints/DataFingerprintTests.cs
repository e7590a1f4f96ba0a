using Peft.Core;
using Peft.Llava;
using Xunit;

namespace Peft.Llava.Tests.Training;

[Collection(ProcessWideState.Name)]
public sealed class DataFingerprintTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("peft-data-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_resume_with_other_samples_says_how_they_differ()
    {
        // A real file, so that its size counts.
        string picture = Path.Combine(_folder, "tiny-1-green.png");
        File.WriteAllText(picture, "twelve bytes");
        var samples = TinyLlava.Samples(6).ToList();
        samples[1] = samples[1] with { Images = [picture] };
        string checkpoint = Run(samples, null)!;
        Assert.Null(Run(samples, checkpoint));

        Assert.Equal("the data set has 5 samples and had 6", Problem(samples.Take(5)));
        Assert.Equal("the data set has the same samples in another order", Problem(samples.AsEnumerable().Reverse()));
        const string Others = "the data set's samples are others (ids, conversations, image names or sizes of image files)";
        Assert.Equal(Others, Problem(Changed(3, s => s with { Id = "another" })));
        Assert.Equal(Others, Problem(Changed(3, s => s with { Turns = [s.Turns[0], s.Turns[1] with { Value = "teal" }] })));
        Assert.Equal(Others, Problem(Changed(3, s => s with { Images = ["tiny-9-green.png"] })));
        File.AppendAllText(picture, "!");
        Assert.Equal(Others, Problem(samples));

        IEnumerable<LlavaSample> Changed(int index, Func<LlavaSample, LlavaSample> change) => samples.Select((s, i) => i == index ? change(s) : s);
        string Problem(IEnumerable<LlavaSample> changed)
        {
            var e = Assert.Throws<StateMismatchException>(() => Run([.. changed], checkpoint));
            Assert.Equal($"The checkpoint {checkpoint} does not fit this training (1 problem): {e.Problems[0]}. Resume with the model and the options it was saved with.", e.Message);
            return Assert.Single(e.Problems);
        }
    }

    [Fact]
    public void A_mixture_s_samples_are_those_of_its_sources()
    {
        using var tiny = TinyLlava.Create(5);
        var (first, second) = (tiny.Dataset(3), tiny.Dataset(5));
        var mixture = new MixtureTrainingData(new DatasetMixture([new("first", first, 1), new("second", second, 2)]), tiny.Model.Config, 256);
        var (one, other) = (new LlavaTrainingData(first, tiny.Model.Config, 256), new LlavaTrainingData(second, tiny.Model.Config, 256));
        Assert.Equal(Enumerable.Range(0, 3).Select(i => "first/" + one.ContentOf(i)).Concat(Enumerable.Range(0, 5).Select(i => "second/" + other.ContentOf(i))), Enumerable.Range(0, 8).Select(mixture.ContentOf));
        Assert.StartsWith("second/tiny-4\u001fhuman\u001f<image>\nWhat color", mixture.ContentOf(7), StringComparison.Ordinal);
    }

    private string? Run(List<LlavaSample> samples, string? resume)
    {
        using var tiny = TinyLlava.Create(5);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 5, TargetModules = (string[])["q_proj"] });
        var options = new TrainingOptions { OutputDirectory = _folder, MaxLength = 256, MaxSteps = 1, BatchSize = 2, SaveSteps = 1, Seed = 3 };
        using var trainer = new LLaVATrainer(peft, new LlavaDataset(samples, new SampleEncoder(tiny.Processor)), options);
        if (resume is not null)
        {
            trainer.ResumeFrom(resume);
            return null;
        }
        trainer.Train();
        return trainer.LastCheckpoint;
    }
}
