using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class AdapterRoutingTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 7, TargetModules = ["lin"] };

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly RoutedLayer _layer = new(nn.Linear(7, 6));
    private readonly PeftModel _peft;
    private readonly AdapterRouting _routing;

    public AdapterRoutingTests()
    {
        _peft = _layer.GetPeftModel(Config);
        _peft.AddAdapter("b", Config with { Rank = 4 });
        TinyNet.Randomise(_peft);
        _routing = _layer.AdapterRouting!;
    }

    public void Dispose()
    {
        _peft.Dispose();
        _layer.Dispose();
        _scope.Dispose();
    }

    [Fact]
    public void Rows_go_to_the_adapters_of_the_samples_that_the_model_names()
    {
        using var noGrad = no_grad();
        var x = randn(4, 7);
        var active = _layer.Run(x);
        using (_routing.Route(9)) TensorAssert.Equal(active, _layer.Run(x), "without adapters by sample");
        using var mixed = _peft.WithAdaptersBySample(["default", "__base__", "b"]);
        // Two beams of the last sample, two rows of the first, none of the one between.
        using (_routing.Route(3, [2, 2, 0, 1], [1, 1, 2, 0])) TensorAssert.Close(cat([With("b", x, 0, 2), With("default", x, 2, 2)], 0), _layer.Run(x), 1e-6, 0, "beams");
        using (_routing.Route(3, [1, 2]))
        {
            TensorAssert.Close(cat([With(null, x, 0, 2), With("b", x, 2, 2)], 0), _layer.Run(x), 1e-6, 0, "two rows for one");
            using (_routing.Route(3, [2], [4])) TensorAssert.Close(With("b", x, 0, 4), _layer.Run(x), 1e-6, 0, "an inner scope");
            using (_peft.WithoutAdapter()) TensorAssert.Close(With(null, x, 0, 4), _layer.Run(x), 1e-6, 0, "switched off");
            TensorAssert.Close(With("b", x, 1, 1), _layer.Run(x.narrow(0, 0, 2)).narrow(0, 1, 1), 1e-6, 0, "the outer scope again");
        }
        TensorAssert.Close(cat([With("default", x, 0, 1), With(null, x, 1, 1), With("b", x, 2, 1)], 0), _layer.Run(x.narrow(0, 0, 3)), 1e-6, 0, "as given");
    }

    [Fact]
    public void What_does_not_fit_the_names_is_refused()
    {
        using var mixed = _peft.WithAdaptersBySample(["default", "__base__", "b"]);
        Assert.Equal("3 adapter names were given for a batch of 4 samples; give one name for each sample, __base__ for none.",
            Assert.Throws<AdapterStateException>(() => _routing.Route(4)).Message);
        Assert.Equal("2 samples were named, but the rows of 3; give one number for each. (Parameter 'rows')",
            Assert.Throws<ArgumentException>(() => _routing.Route(3, [0, 1], [1, 2, 3])).Message);
        Assert.Equal("3 samples were named, but the rows of 1; give one number for each. (Parameter 'rows')",
            Assert.Throws<ArgumentException>(() => _routing.Route(3, null, [1])).Message);
        using var route = _routing.Route(3, [1, 2]);
        Assert.Equal("The model said that a layer's input has 2 rows or a multiple, and it has 3; the layer works on other rows than those of the samples, and its adapters cannot be mixed.",
            Assert.Throws<AdapterStateException>(() => _layer.Run(randn(3, 7))).Message);
    }

    [Fact]
    public void What_ran_with_some_adapters_can_run_with_them_again()
    {
        using var noGrad = no_grad();
        var x = randn(2, 7);
        var now = _layer.Run(x);
        var (wanted, moments) = (new List<Tensor>(), new List<AdapterMoment>());
        Func<IDisposable>[] ways = [() => _peft.WithAdapters("b"), _peft.WithoutAdapter, () => _peft.WithAdaptersBySample(["b", "default"]), () => _peft.WithAdapters("b", "default")];
        foreach (var enter in ways)
        {
            using var entered = enter();
            moments.Add(_routing.Now());
            wanted.Add(_layer.Run(x));
            Assert.True((wanted[^1] - now).abs().max().ToDouble() > 1e-3);
        }
        foreach (var (moment, output) in moments.Zip(wanted))
            using (_routing.Return(moment)) TensorAssert.Equal(output, _layer.Run(x), "again");
        TensorAssert.Equal(now, _layer.Run(x), "afterwards");
    }

    [Fact]
    public void The_model_loses_it_with_its_adapters()
    {
        using var layer = new RoutedLayer(nn.Linear(7, 6));
        Assert.Null(layer.AdapterRouting);
        var peft = layer.GetPeftModel(Config);
        Assert.NotNull(layer.AdapterRouting);
        peft.Dispose();
        Assert.Null(layer.AdapterRouting);
    }

    private Tensor With(string? adapter, Tensor x, long start, long length)
    {
        using var alone = adapter is null ? _peft.WithoutAdapter() : _peft.WithAdapters(adapter);
        return _layer.Run(x.narrow(0, start, length));
    }

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

        public Tensor Run(Tensor x) => lin.call(x);
    }
}
