using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Vision;

public sealed class FeatureCacheTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("features").FullName;

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Losses_are_those_without_a_cache_in_every_epoch(ScalarType dtype)
    {
        double[] plain = Losses(null, dtype, out _);
        using var memory = new MemoryFeatureStore(1 << 24);
        double[] cached = Losses(memory, dtype, out var inMemory);
        Assert.Equal(plain, cached);
        Assert.Equal((6, 12), (inMemory!.Misses, inMemory.Hits));
        Assert.Equal(plain, Losses(new DiskFeatureStore(_folder), dtype, out var first));
        Assert.Equal(6, first!.Misses);
        // Another process would find the files as well.
        Assert.Equal(plain, Losses(new DiskFeatureStore(_folder), dtype, out var second));
        Assert.Equal((0, 18), (second!.Misses, second.Hits));
    }

    [Fact]
    public void Only_tiles_not_seen_before_go_through_the_tower()
    {
        using var tiny = TinyLlava.Create();
        var tower = tiny.Model.VisionTower!;
        using var pixels = randn(3, 3, 28, 28);
        using var plain = tower.call(pixels);
        using var store = new MemoryFeatureStore(1 << 20);
        tower.Cache = new FeatureCache(tower, store);
        using var two = pixels.narrow(0, 1, 2);
        tower.call(two).Dispose();
        using var mixed = tower.call(pixels);
        Assert.Equal((3, 2), (tower.Cache.Misses, tower.Cache.Hits));
        Assert.True(plain.allclose(mixed, 1e-6, 1e-6));
        Assert.Equal(3, store.Count);
        LeakGuard.AssertFlat(5, () => tower.call(pixels).Dispose());
    }

    [Fact]
    public void A_full_store_keeps_what_it_has()
    {
        using var store = new MemoryFeatureStore(100);
        using var features = ones(4, 5);
        store.Keep(new FeatureKey("t", "a"), features);
        store.Keep(new FeatureKey("t", "b"), features);
        using var found = store.Find(new FeatureKey("t", "a"));
        Assert.NotNull(found);
        Assert.Null(store.Find(new FeatureKey("t", "b")));
        Assert.Equal(80, store.Bytes);
    }

    [Fact]
    public void Another_tower_has_other_features()
    {
        using var one = TinyLlava.Create(1);
        using var two = TinyLlava.Create(2);
        using var pixels = randn(1, 3, 28, 28);
        var store = new DiskFeatureStore(_folder);
        foreach (var model in (LlavaModel[])[one.Model, two.Model])
        {
            var tower = model.VisionTower!;
            tower.Cache = new FeatureCache(tower, store);
            tower.call(pixels).Dispose();
            Assert.Equal((1, 0), (tower.Cache.Misses, tower.Cache.Hits));
        }
    }

    [Fact]
    public void A_damaged_file_is_refused_or_made_again()
    {
        var key = new FeatureKey(new string('a', 64), new string('b', 64));
        var store = new DiskFeatureStore(_folder);
        using var features = randn(4, 6);
        store.Keep(key, features);
        string path = store.PathOf(key);
        byte[] whole = File.ReadAllBytes(path);
        whole[^3] ^= 0x10;
        File.WriteAllBytes(path, whole);
        var changed = Assert.Throws<FeatureCacheException>(() => store.Find(key));
        Assert.Equal($"{path}: its content is not what was written. Delete the file, or let damaged ones be made again with DamagedFeatures.Recompute.",
            changed.Message);
        Assert.Equal(path, changed.Path);
        File.WriteAllBytes(path, whole[..40]);
        var cut = Assert.Throws<FeatureCacheException>(() => store.Find(key));
        Assert.Contains("it cannot be read (", cut.Message);
        Assert.IsType<SafetensorsFormatException>(cut.InnerException);

        var tolerant = new DiskFeatureStore(_folder, DamagedFeatures.Recompute);
        Assert.Null(tolerant.Find(key));
        Assert.Equal(1, tolerant.DamagedCount);
        tolerant.Keep(key, features);
        using var found = tolerant.Find(key);
        Assert.True(found!.equal(features).all().ToBoolean());
    }

    [Fact]
    public void A_file_of_another_key_is_not_taken()
    {
        var key = new FeatureKey(new string('a', 64), new string('b', 64));
        var other = new FeatureKey(new string('a', 64), "bc" + new string('d', 62));
        var store = new DiskFeatureStore(_folder);
        using var features = ones(2, 2);
        store.Keep(key, features);
        Directory.CreateDirectory(Path.GetDirectoryName(store.PathOf(other))!);
        File.Copy(store.PathOf(key), store.PathOf(other));
        Assert.Contains("it holds the features of something else", Assert.Throws<FeatureCacheException>(() => store.Find(other)).Message);
    }

    [Fact]
    public void A_folder_that_cannot_be_written_is_named()
    {
        string file = Path.Combine(_folder, "file");
        File.WriteAllText(file, "");
        using var features = ones(2, 2);
        var store = new DiskFeatureStore(file);
        var key = new FeatureKey(new string('a', 64), new string('b', 64));
        Assert.StartsWith($"{store.PathOf(key)} could not be written: ", Assert.Throws<FileWriteException>(() => store.Keep(key, features)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_trained_tower_must_not_have_a_cache()
    {
        using var tiny = TinyLlava.Create();
        var tower = tiny.Model.VisionTower!;
        using var store = new MemoryFeatureStore(1 << 20);
        tower.Cache = new FeatureCache(tower, store);
        tiny.Model.SetTrainable(ModelPart.VisionTower, true);
        using var pixels = randn(1, 3, 28, 28);
        var error = Assert.Throws<InvalidOperationException>(() => tower.call(pixels));
        Assert.Equal("The vision tower has a feature cache and trained parameters, whose features change. Freeze it, or set Cache to null.", error.Message);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Three epochs over six samples, in an order that changes; the projector learns, too.</summary>
    private static double[] Losses(IFeatureStore? store, ScalarType dtype, out FeatureCache? cache)
    {
        using var tiny = TinyLlava.Create(3, dtype);
        var tower = tiny.Model.VisionTower!;
        cache = tower.Cache = store is null ? null : new FeatureCache(tower, store);
        using var scope = NewDisposeScope();
        manual_seed(5);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 4, Alpha = 12, Dropout = 0.1, TargetModules = ["q_proj", "down_proj"] });
        string output = Directory.CreateTempSubdirectory("cached").FullName;
        try
        {
            var losses = new LossList();
            using var trainer = new LLaVATrainer(peft, tiny.Dataset(6), new TrainingOptions
            {
                OutputDirectory = output, BatchSize = 1, Epochs = 3, LearningRate = 1e-2, SaveStrategy = SaveStrategy.None,
                Precision = dtype == ScalarType.BFloat16 ? TrainingPrecision.BFloat16 : TrainingPrecision.Float32, MaxLength = 256,
            }, losses);
            trainer.Train();
            return [.. losses.Values];
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    private sealed class LossList : ITrainingObserver
    {
        public List<double> Values { get; } = [];

        public TrainingVerdict OnStep(StepReport report)
        {
            Values.Add(report.Loss);
            return TrainingVerdict.Continue;
        }
    }
}
