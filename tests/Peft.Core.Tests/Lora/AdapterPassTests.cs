using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>The adapters of a pass belong to the call: what others choose meanwhile does not reach it.</summary>
public sealed class AdapterPassTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 7, TargetModules = ["lin"] };

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly RoutedLayer _layer = new(nn.Linear(7, 6));
    private readonly PeftModel _peft;
    private readonly AdapterRouting _routing;
    private readonly Tensor _x = randn(3, 7);

    public AdapterPassTests()
    {
        _peft = _layer.GetPeftModel(Config, "a");
        _peft.AddAdapter("b", Config with { Rank = 4, Dropout = 0.5 });
        TinyNet.Randomise(_peft);
        _layer.eval();
        _routing = _layer.AdapterRouting!;
    }

    public void Dispose()
    {
        _peft.Dispose();
        _layer.Dispose();
        _scope.Dispose();
    }

    [Fact, Trait("Fault", "use-1")]
    public async Task A_scope_holds_for_the_call_that_opened_it_and_for_what_it_starts()
    {
        var (a, b, off) = (With("a"), With("b"), With());
        using var opened = new SemaphoreSlim(0);
        using var looked = new SemaphoreSlim(0);
        var other = Task.Run(() =>
        {
            using var chosen = _peft.WithAdapters("b");
            opened.Release();
            looked.Wait();
            return _layer.Run(_x);
        });
        await opened.WaitAsync();
        AssertSame(a, _layer.Run(_x), "the other task's scope is open");
        Task<Tensor> late;
        using (_peft.WithoutAdapter())
        {
            AssertSame(off, await Task.Run(() => _layer.Run(_x)), "a task within the scope");
            await Task.Yield();
            AssertSame(off, _layer.Run(_x), "the call goes on on another thread");
            late = Task.Run(() =>
            {
                looked.Wait();
                return _layer.Run(_x);
            });
        }
        AssertSame(a, _layer.Run(_x), "the scope has ended");
        looked.Release(2);
        AssertSame(b, await other, "the other task");
        AssertSame(off, await late, "a task that outlives the scope it was started in");
    }

    [Fact, Trait("Fault", "use-1")]
    public void A_pass_keeps_the_adapters_that_acted_where_it_began()
    {
        var (a, b, off) = (With("a"), With("b"), With());
        using (_routing.Begin())
        {
            _peft.SetActive("b");
            AssertSame(a, _layer.Run(_x), "within the pass");
            Assert.Equal(["a"], _peft.ActiveAdapters);
            Assert.Null(_routing.Begin());
            using (_peft.WithoutAdapter()) AssertSame(off, _layer.Run(_x), "a scope within the pass");
            using (_peft.WithoutAdapter())
            using (_peft.WithAdapters("b")) AssertSame(b, _layer.Run(_x), "the inner scope");
        }
        AssertSame(b, _layer.Run(_x), "after the pass");
    }

    [Fact, Trait("Fault", "use-1")]
    public void Nothing_is_dropped_in_an_evaluating_pass()
    {
        using var chosen = _peft.WithAdapters("b");
        var wanted = _layer.Run(_x);
        _layer.train();
        using (_routing.Begin())
        {
            Assert.True((_layer.Run(_x) - wanted).abs().max().ToDouble() > 1e-3);
            using (_routing.Begin(evaluation: true)) AssertSame(wanted, _layer.Run(_x), "evaluating");
            Assert.True((_layer.Run(_x) - wanted).abs().max().ToDouble() > 1e-3);
        }
    }

    [Fact]
    public void Scopes_may_end_in_any_order()
    {
        var (a, b, off) = (With("a"), With("b"), With());
        var first = _peft.WithAdapters("b");
        var second = _peft.WithoutAdapter();
        first.Dispose();
        AssertSame(off, _layer.Run(_x), "the inner one goes on");
        second.Dispose();
        second.Dispose();
        AssertSame(a, _layer.Run(_x), "none is left");
        var third = _peft.WithAdapters("b");
        Elsewhere(third.Dispose);
        AssertSame(b, _layer.Run(_x), "ended elsewhere, it goes on here");
        third.Dispose();
    }

    [Fact, Trait("Fault", "use-1")]
    public async Task A_change_waits_for_passes_elsewhere_and_later_passes_wait_for_it()
    {
        var began = new TaskCompletionSource();
        using var end = new ManualResetEventSlim();
        var pass = Task.Run(() =>
        {
            using var running = _routing.Begin();
            began.SetResult();
            end.Wait();
            return _layer.Run(_x);
        });
        await began.Task;
        var wanted = With("a");
        var merge = Task.Run(() => _peft.Merge());
        Assert.NotSame(merge, await Task.WhenAny(merge, Task.Delay(100)));
        var late = Task.Run(() =>
        {
            using var running = _routing.Begin();
            return _peft.MergedAdapters.Count;
        });
        Assert.NotSame(late, await Task.WhenAny(late, Task.Delay(100)));
        end.Set();
        AssertSame(wanted, await pass, "the pass");
        Assert.Equal(["a"], (await merge).Adapters);
        Assert.Equal(1, await late);
    }

    [Theory, Trait("Fault", "use-1")]
    [InlineData("Merge"), InlineData("AddAdapter"), InlineData("DeleteAdapter"), InlineData("RenameAdapter"), InlineData("Unload"), InlineData("AddWeightedAdapter"), InlineData("Scaling")]
    public void A_change_is_refused_within_a_pass(string what)
    {
        var wanted = _layer.Run(_x);
        using (_routing.Begin())
        {
            Action change = what switch
            {
                "Merge" => () => _peft.Merge(),
                "AddAdapter" => () => _peft.AddAdapter("c", Config),
                "DeleteAdapter" => () => _peft.DeleteAdapter("b"),
                "RenameAdapter" => () => _peft.RenameAdapter("b", "c"),
                "Unload" => _peft.Unload,
                "AddWeightedAdapter" => () => _peft.AddWeightedAdapter(["a", "b"], [1, 2], "c"),
                _ => () => _peft.SetScale("a", 3),
            };
            Assert.Equal($"{what} was called within a pass through the model (a callback of a generation?), whose adapters must not change under way; call it after the pass.",
                Assert.Throws<AdapterStateException>(change).Message);
            AssertSame(wanted, _layer.Run(_x), "unchanged");
        }
        Assert.Equal(["a", "b"], _peft.AdapterNames);
    }

    [Fact, Trait("Fault", "lora-6")]
    public void Scopes_and_merged_adapters_do_not_mix()
    {
        using (_peft.WithAdaptersBySample(["a", "b", "__base__"]))
        {
            Assert.Equal("Merge was called within WithAdapters, WithAdaptersBySample or WithoutAdapter, whose adapters it would change; call it after the scope.",
                Assert.Throws<AdapterStateException>(() => _peft.Merge()).Message);
        }
        using (_peft.WithAdapters("b"))
        {
            Assert.Contains("MergeAndUnload was called within WithAdapters", Assert.Throws<AdapterStateException>(() => _peft.MergeAndUnload()).Message, StringComparison.Ordinal);
            Assert.Contains("DeleteAdapter was called within WithAdapters", Assert.Throws<AdapterStateException>(() => _peft.DeleteAdapter("b")).Message, StringComparison.Ordinal);
            Assert.Contains("RenameAdapter was called within WithAdapters", Assert.Throws<AdapterStateException>(() => _peft.RenameAdapter("b", "c")).Message, StringComparison.Ordinal);
            _peft.RenameAdapter("a", "c");
            _peft.RenameAdapter("c", "a");
        }
        _peft.Merge(["a"]);
        Assert.Equal("Adapters a are merged; call Unmerge before activating others.", Assert.Throws<AdapterStateException>(() => _peft.WithAdapters("b")).Message);
        Assert.Equal("Adapters by sample cannot be used while adapters are merged; call Unmerge first.",
            Assert.Throws<AdapterStateException>(() => _peft.WithAdaptersBySample(["a", "b", "b"])).Message);
        _peft.Unmerge();
        Assert.Equal("An adapter can be active only once: a, a.", Assert.Throws<AdapterStateException>(() => _peft.WithAdapters("a", "a")).Message);
    }

    [Fact, Trait("Fault", "lora-6")]
    public void What_is_merged_deleted_or_renamed_elsewhere_is_refused_by_a_scope_that_chose_it()
    {
        using (_peft.WithAdapters("b"))
        {
            Elsewhere(() => _peft.Merge(["a"]));
            Assert.Equal("Adapters a were merged while a scope had other adapters chosen (WithAdapters, WithAdaptersBySample, WithoutAdapter); end the scope, or call Unmerge.",
                Assert.Throws<AdapterStateException>(() => _layer.Run(_x)).Message);
            Assert.Contains("were merged while a scope", Assert.Throws<AdapterStateException>(() => _routing.Begin()).Message, StringComparison.Ordinal);
            Elsewhere(_peft.Unmerge);
            AssertSame(With("b"), _layer.Run(_x), "taken out again");
            Elsewhere(() => _peft.RenameAdapter("b", "c"));
            Assert.Equal("There is no adapter 'b'; there are a, c.", Assert.Throws<AdapterNotFoundException>(() => _layer.Run(_x)).Message);
        }
        using (_peft.WithAdaptersBySample(["a", "c", "__base__"]))
        {
            var wanted = _layer.Run(_x);
            Elsewhere(() => _peft.AddAdapter("d", Config));
            Elsewhere(() => _peft.DeleteAdapter("d"));
            AssertSame(wanted, _layer.Run(_x), "another one went");
            Elsewhere(() => _peft.DeleteAdapter("c"));
            Assert.Equal("There is no adapter 'c'; there is a.", Assert.Throws<AdapterNotFoundException>(() => _layer.Run(_x)).Message);
        }
        Elsewhere(() => _peft.Merge());        // nothing keeps the end of a failed pass from changes
    }

    [Fact, Trait("Fault", "lora-6")]
    public void Merged_adapters_come_back_when_the_last_call_without_adapters_ends()
    {
        _peft.Merge(["a"]);
        var (merged, off) = (_layer.Run(_x), (Tensor?)null);
        using (_peft.WithoutAdapter())
        {
            off = _layer.Run(_x);
            using (_peft.WithoutAdapter()) AssertSame(off, _layer.Run(_x), "within both");
            AssertSame(off, _layer.Run(_x), "the outer one goes on");
            const string Suspended = "Adapters a are merged, and taken out until WithoutAdapter ends";
            Elsewhere(() =>
            {
                TensorAssert.Close(merged, _layer.Run(_x), 1e-5, 1e-5, "another call has them, unmerged");
                Assert.Equal(Suspended + "; merge after it.", Assert.Throws<AdapterStateException>(() => _peft.Merge()).Message);
                Assert.Equal($"Adapter 'a' is merged, and taken out until WithoutAdapter ends; rename it after that.", Assert.Throws<AdapterStateException>(() => _peft.RenameAdapter("a", "c")).Message);
                Action[] others = [() => _peft.SetActive("b"), () => _peft.DeleteAdapter("a"), () => _peft.SetScale("a", 2), () => _peft.AddAdapter("c", Config)];
                foreach (var other in others) Assert.Contains("merged", Assert.Throws<AdapterStateException>(other).Message, StringComparison.Ordinal);
            });
        }
        Assert.Equal(["a"], _peft.MergedAdapters);
        AssertSame(merged, _layer.Run(_x), "merged again");
        Assert.True((merged - off).abs().max().ToDouble() > 1e-2);
        var last = _peft.WithoutAdapter();
        _peft.Unload();
        last.Dispose();
        Assert.Equal(6, _layer.Run(_x).shape[1]);
    }

    private static void Elsewhere(Action action)
    {
        Exception? thrown = null;
        var thread = new Thread(() => thrown = Record.Exception(action));
        using (ExecutionContext.SuppressFlow()) thread.Start();
        thread.Join();
        if (thrown is not null) throw new InvalidOperationException(thrown.Message, thrown);
    }

    private Tensor With(params string[] adapters)
    {
        using var scope = adapters.Length == 0 ? _peft.WithoutAdapter() : _peft.WithAdapters(adapters);
        return _layer.Run(_x);
    }

    private static void AssertSame(Tensor wanted, Tensor got, string what) => TensorAssert.Equal(wanted, got, what);

    private sealed class RoutedLayer : nn.Module, IAdapterRouted
    {
#pragma warning disable IDE0044 // adapters replace the field's value
        private nn.Module<Tensor, Tensor> lin;
#pragma warning restore IDE0044

        public RoutedLayer(nn.Module<Tensor, Tensor> layer)
            : base(nameof(RoutedLayer))
        {
            lin = layer;
            RegisterComponents();
        }

        public AdapterRouting? AdapterRouting { get; set; }

        public Tensor Run(Tensor x)
        {
            using var noGrad = no_grad();
            return lin.call(x);
        }
    }
}
