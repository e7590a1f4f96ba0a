using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class ModuleTreeTests
{
    [Theory]
    [InlineData("first")]
    [InlineData("blocks.1")]
    [InlineData("tail.down")]
    public void A_module_is_replaced_where_the_code_calls_it_and_where_parameters_are_found(string path)
    {
        using var scope = NewDisposeScope();
        using var net = new TinyNet();
        var order = net.named_parameters().Select(p => p.name).ToList();
        var old = (TorchSharp.Modules.Linear)ModuleTree.Find(net, path)!;
        using var other = nn.Linear(old.in_features, old.out_features, old.bias is not null);
        var x = randn(4, 7);
        var before = net.call(x);
        Assert.Same(old, ModuleTree.Replace(net, path, other));
        Assert.Same(other, ModuleTree.Find(net, path));
        Assert.True(net.call(x).sub(before).abs().max().ToDouble() > 1e-4);
        Assert.Equal(order, net.named_parameters().Select(p => p.name));
        ModuleTree.Replace(net, path, old);
        Peft.Testing.TensorAssert.Equal(before, net.call(x), "output after putting it back");
    }

    [Fact]
    public void A_replacement_gets_the_training_mode_of_what_stood_there()
    {
        using var net = new TinyNet();
        net.eval();
        using var other = nn.Linear(7, 5);
        ModuleTree.Replace(net, "first", other);
        Assert.False(other.training);
    }

    [Fact]
    public void A_field_that_cannot_hold_the_module_is_named()
    {
        using var net = new TinyNet();
        var e = Assert.Throws<ModuleReplacementException>(() => net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["narrow", "first"] }));
        Assert.Equal("narrow: field TinyNet.narrow is Linear, which cannot hold LoraLinear; declare it as Module<Tensor, Tensor>.", e.Message);
        Assert.DoesNotContain(ModuleTree.Modules(net), m => m.Module is IAdapterHost);
        Assert.All(net.parameters(), p => Assert.True(p.requires_grad));
    }

    [Fact]
    public void A_list_of_a_narrow_type_is_named()
    {
        using var net = new NarrowList();
        var e = Assert.Throws<ModuleReplacementException>(() => ModuleTree.CheckReplaceable(net, "layers.0", typeof(LoraLinear)));
        Assert.Equal("layers.0: the list ModuleList<Linear>._list holds Linear, which LoraLinear is not; declare its elements as Module<Tensor, Tensor>.", e.Message);
    }

    [Fact]
    public void A_module_that_no_field_holds_is_said()
    {
        using var net = new Hidden();
        var e = Assert.Throws<ModuleReplacementException>(() => ModuleTree.CheckReplaceable(net, "inner", typeof(LoraLinear)));
        Assert.Equal("inner: no field or list of Hidden holds this Linear, so its code would go on calling the old one; keep it in a field.", e.Message);
    }

    [Fact]
    public void A_path_that_leads_nowhere_is_said()
    {
        using var net = new TinyNet();
        Assert.Equal("blocks.7: there is no such module in TinyNet.", Assert.Throws<ModuleReplacementException>(() => ModuleTree.CheckReplaceable(net, "blocks.7", typeof(LoraLinear))).Message);
    }

    private sealed class NarrowList : nn.Module
    {
        private readonly TorchSharp.Modules.ModuleList<TorchSharp.Modules.Linear> layers;

        public NarrowList()
            : base(nameof(NarrowList))
        {
            layers = new(nn.Linear(2, 2));
            RegisterComponents();
            _ = layers.Count;
        }
    }

    private sealed class Hidden : nn.Module
    {
        public Hidden()
            : base(nameof(Hidden))
        {
            RegisterComponents();
            register_module("inner", nn.Linear(2, 2));
        }
    }
}
