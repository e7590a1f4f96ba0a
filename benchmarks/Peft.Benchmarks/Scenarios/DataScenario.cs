using Peft.Llava;

namespace Peft.Benchmarks;

/// <summary>One thread making samples: 640x480 JPEG, square padding, CLIP processing, tokens and labels.</summary>
internal static class DataScenario
{
    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(BenchmarkSize size, int repeats)
    {
        string folder = Directory.CreateTempSubdirectory("peft-benchmark-").FullName;
        try
        {
            for (int i = 0; i < 8; i++) File.WriteAllBytes(Path.Combine(folder, $"{i}.jpg"), BenchmarkPicture.Jpeg(i));
            using var tiny = TinyLlava.Create();
            var images = new ClipImageProcessor(ImageProcessorConfig.Clip(size.Vision.Image), AspectPolicy.Pad);
            var processor = new LlavaProcessor(tiny.Tokenizer, images, Templates.Default);
            var samples = Enumerable.Range(0, size.DataSamples).Select(i => new LlavaSample(i, i.ToString(), [$"{i % 8}.jpg"],
            [
                new ConversationTurn("human", "<image>\nWhat is shown here, and what could it be used for in everyday life?"),
                new ConversationTurn("gpt", string.Join(' ', Enumerable.Range(0, 60).Select(w => $"word{(i * 7 + w) % 50}"))),
            ])).ToList();
            var encoder = new SampleEncoder(processor, folder);
            bool reset = ProcessMemory.ResetPeak();
            var seconds = new List<double>();
            for (int i = 0; i <= repeats; i++)
            {
                double start = Clock.Now();
                foreach (var sample in samples) encoder.Encode(sample).Dispose();
                if (i > 0) seconds.Add(Clock.Now() - start);
            }
            double median = TrainingScenario.Median(seconds);
            return [new("whole sample", median / samples.Count, seconds.Min() / samples.Count, samples.Count / median, "samples/s", null,
                ProcessMemory.PeakMegabytes, $"one thread; peak reset {reset}")];
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
