using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Requests that run on one model at the same time get the answers that they get one after the other.</summary>
[Trait("Fault", "use-1")]
public sealed class ConcurrentRequestsTests
{
    private const string Base = "__base__";
    private const int Threads = 4;

    public enum Kind
    {
        BySample,
        OneAdapter,
        Several,
        Off,
        Default,
    }

    [Theory, InlineData(false, false), InlineData(true, false), InlineData(false, true), InlineData(true, true)]
    public void Requests_on_threads_of_their_own_get_the_answers_of_serial_calls(bool nf4, bool switching)
    {
        using var server = new Server(nf4);
        var requests = switching ? Server.Requests : [.. Server.Requests.Where(r => r.Kind == Kind.Default)];
        var serial = requests.Select(server.Answer).ToList();
        if (switching) Assert.True(serial.Select(Text).Distinct().Count() >= 8, "The requests' answers hardly differ.");

        var answers = RunAll(Enumerable.Range(0, 3 * requests.Count), i => server.Answer(requests[i % requests.Count]));

        Assert.All(answers, a => Assert.Equal(Text(serial[a.Index % requests.Count]), Text(a.Answer)));
    }

    [Fact]
    public async Task What_is_made_active_meanwhile_counts_for_later_requests_alone()
    {
        using var server = new Server(nf4: false);
        var chosen = Server.Requests.Where(r => r.Kind != Kind.Default).ToList();
        var serial = chosen.Select(r => Text(server.Answer(r))).ToList();
        var open = new Request(Kind.Default, [0, 1, 2, 3]);
        string[] either = [.. new[] { "a", "b" }.Select(name =>
        {
            server.Peft.SetActive(name);
            return Text(server.Answer(open));
        })];
        Assert.NotEqual(either[0], either[1]);
        using var stop = new CancellationTokenSource();
        var switcher = Task.Run(() =>
        {
            for (int i = 0; !stop.IsCancellationRequested; i++) server.Peft.SetActive(i % 2 == 0 ? "a" : "b");
        });

        var answers = RunAll(Enumerable.Range(0, 24), i => server.Answer(i % 2 == 0 ? open : chosen[i / 2 % chosen.Count]));

        await stop.CancelAsync();
        await switcher;
        foreach (var (index, answer) in answers)
        {
            if (index % 2 == 0) Assert.Contains(Text(answer), either);
            else Assert.Equal(serial[index / 2 % chosen.Count], Text(answer));
        }
    }

    [Fact]
    public void Nothing_is_dropped_in_requests_to_a_model_in_training_mode()
    {
        using var server = new Server(nf4: false);
        var serial = Server.Requests.Select(server.Answer).ToList();
        server.Model.train();

        var answers = RunAll(Enumerable.Range(0, 24), i => server.Answer(Server.Requests[i % Server.Requests.Count]));

        Assert.True(server.Model.training);
        Assert.All(answers, a => Assert.Equal(Text(serial[a.Index % serial.Count]), Text(a.Answer)));
    }

    [Fact]
    public async Task A_change_of_adapters_waits_for_the_requests_that_run_and_is_refused_within_one()
    {
        using var server = new Server(nf4: false);
        var request = new Request(Kind.OneAdapter, [0, 3]);
        string wanted = Text(server.Answer(request));
        using var first = new ManualResetEventSlim();
        Exception? refused = null;
        bool merged = false, early = false;
        var merge = Task.Run(() =>
        {
            first.Wait();
            server.Peft.Merge(["b"]);
            merged = true;
        });

        var answer = server.Answer(request, step =>
        {
            first.Set();
            Thread.Sleep(10);
            early |= merged;
            refused ??= Record.Exception(() => server.Peft.DeleteAdapter("b"));
        });

        await merge;
        Assert.False(early);
        Assert.Equal(["b"], server.Peft.MergedAdapters);
        Assert.Equal(wanted, Text(answer));
        Assert.Equal("DeleteAdapter was called within a pass through the model (a callback of a generation?), whose adapters must not change under way; call it after the pass.",
            Assert.IsType<AdapterStateException>(refused).Message);
    }

    [Fact]
    public void Pictures_that_several_requests_share_are_kept_once()
    {
        using var server = new Server(nf4: false);
        var request = new Request(Kind.Default, [1, 3]);
        string wanted = Text(server.Answer(request));
        using var store = new MemoryFeatureStore(1 << 24);
        server.Model.VisionTower!.Cache = new FeatureCache(server.Model.VisionTower, store);

        var answers = RunAll(Enumerable.Range(0, 24), _ => server.Answer(request));

        Assert.All(answers, a => Assert.Equal(wanted, Text(a.Answer)));
        Assert.Equal(3, store.Count);
        Assert.Equal(24 * 3, server.Model.VisionTower.Cache.Hits + server.Model.VisionTower.Cache.Misses);
    }

    private static List<(int Index, IReadOnlyList<IReadOnlyList<int>> Answer)> RunAll(IEnumerable<int> indices, Func<int, IReadOnlyList<IReadOnlyList<int>>> answer)
    {
        var all = indices.ToList();
        var answers = new IReadOnlyList<IReadOnlyList<int>>[all.Count];
        int next = -1;
        var threads = Enumerable.Range(0, Threads).Select(_ => Task.Factory.StartNew(
            () =>
            {
                for (int i = Interlocked.Increment(ref next); i < answers.Length; i = Interlocked.Increment(ref next)) answers[i] = answer(all[i]);
            },
            TaskCreationOptions.LongRunning)).ToArray();
        Task.WaitAll(threads);
        return [.. answers.Select((a, i) => (all[i], a))];
    }

    private static string Text(IReadOnlyList<IReadOnlyList<int>> answer) => string.Join(" | ", answer.Select(ids => string.Join(" ", ids)));

    private sealed record Request(Kind Kind, int[] Samples, bool Sampled = false);

    /// <summary>A model that answers requests, each with adapters of its own.</summary>
    private sealed class Server : IDisposable
    {
        public static readonly IReadOnlyList<Request> Requests =
        [
            new(Kind.BySample, [0, 1, 2, 3]), new(Kind.OneAdapter, [1, 2]), new(Kind.Off, [0, 3]), new(Kind.Default, [0, 1, 2, 3]), new(Kind.Several, [3, 2]),
            new(Kind.BySample, [3, 1], Sampled: true), new(Kind.Default, [1, 0], Sampled: true), new(Kind.OneAdapter, [0], Sampled: true), new(Kind.Off, [2]), new(Kind.Default, [3]),
        ];

        private static readonly string[] Names = ["b", "a", Base, "b"];
        private readonly TinyLlava _tiny = TinyLlava.Create(7);
        private readonly LlavaBatchSample[] _samples =
        [
            new("none", [1, 9, 8, 20, 31, 7], null, []), new("one", [1, 44, -200, 6], null, [Picture(1)]),
            new("short", [1, 5], null, []), new("two", [1, -200, 12, -200, 6, 33, 71], null, [Picture(2), Picture(3)]),
        ];

        public Server(bool nf4)
        {
            if (nf4) new ModelQuantizer(QuantizationConfig.Nf4(ScalarType.Float32)).Quantize(_tiny.Model);
            var config = new LoraConfig { Rank = 3, Alpha = 7, Dropout = 0.5, TargetModules = ["v_proj", "up_proj", "down_proj", "model.mm_projector.0"] };
            Peft = _tiny.Model.GetPeftModel(config, "a");
            Peft.AddAdapter("b", config with { Rank = 5, TargetModules = ["q_proj", "down_proj", "embed_tokens", "model.mm_projector.2"] });
            using var noGrad = no_grad();
            using var scope = NewDisposeScope();
            foreach (var (_, parameter) in Peft.NamedParameters().Where(p => p.Name.Contains("lora_", StringComparison.Ordinal))) parameter.copy_(randn_like(parameter) * 0.4);
        }

        public PeftModel Peft { get; }

        public LlavaModel Model => _tiny.Model;

        public IReadOnlyList<IReadOnlyList<int>> Answer(Request request) => Answer(request, null);

        public IReadOnlyList<IReadOnlyList<int>> Answer(Request request, Action<GenerationStep>? onStep)
        {
            using var adapters = request.Kind switch
            {
                Kind.BySample => Peft.WithAdaptersBySample([.. request.Samples.Select(s => Names[s])]),
                Kind.OneAdapter => Peft.WithAdapters("b"),
                Kind.Several => Peft.WithAdapters("b", "a"),
                Kind.Off => Peft.WithoutAdapter(),
                _ => null,
            };
            using var scope = NewDisposeScope();
            using var batch = new LlavaBatchBuilder(Model.Config, new() { PaddingSide = PaddingSide.Left }).Build([.. request.Samples.Select(s => _samples[s])]);
            var options = new GenerationOptions
            {
                MaxNewTokens = 10, EosTokenIds = [], ShouldStop = (row, ids) => ids.Count == 6 + row, OnStep = onStep,
                Sampling = request.Sampled ? new() { Seed = 12, Temperature = 1.3, TopK = 50 } : null,
            };
            return new TextGenerator(Model).Generate(batch, options).TokenIds;
        }

        public void Dispose()
        {
            Peft.Dispose();
            _tiny.Dispose();
            foreach (var image in _samples.SelectMany(s => s.Images)) image.Pixels.Dispose();
        }

        private static ImageTiles Picture(int seed)
        {
            using var generator = new Generator((ulong)seed);
            return new(randn([1, 3, 28, 28], generator: generator), new ImageSize(28, 28));
        }
    }
}
