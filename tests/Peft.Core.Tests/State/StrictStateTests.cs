using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class StrictStateTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void All_faults_come_in_one_exception_and_nothing_changes()
    {
        using var scope = NewDisposeScope();
        using var reader = File(("weight", ones(1, 3)), ("bais", ones(2)));
        var wanted = new Dictionary<string, Tensor> { ["weight"] = zeros(2, 3), ["bias"] = zeros(2) };
        var e = Assert.Throws<StateMismatchException>(() => StrictState.Load(reader, wanted, "Linear"));
        Assert.Equal("""
            adapter_model.safetensors: 3 tensor(s) do not fit.
              weight: file has (1, 3), model wants (2, 3)
              bais: not in Linear; did you mean bias?
              bias: missing from file; did you mean bais?
            Nothing was changed. Load the file that was saved from Linear, or only what fits with StrictState.LoadPartial.
            """, e.Message);
        Assert.Equal([StateFaultKind.Shape, StateFaultKind.Unexpected, StateFaultKind.Missing], e.Faults.Select(fault => fault.Kind));
        Assert.Equal((reader.Source, "Linear"), (e.SourceFile, e.Model));
        TensorAssert.Equal(zeros(2, 3), wanted["weight"], "weight");
        Assert.Equal(e.Message, Assert.Throws<StateMismatchException>(() => StrictState.Check(reader, wanted, "Linear")).Message);
    }

    [Fact]
    public void One_fault_keeps_all_others_from_being_loaded()
    {
        using var scope = NewDisposeScope();
        using var reader = File(("a", ones(2)), ("b", ones(3)));
        var wanted = new Dictionary<string, Tensor> { ["a"] = zeros(2), ["b"] = zeros(1) };
        Assert.Contains("b: file has (3), model wants (1)", Assert.Throws<StateMismatchException>(() => StrictState.Load(reader, wanted)).Message, StringComparison.Ordinal);
        TensorAssert.Equal(zeros(2), wanted["a"], "a");
        var report = StrictState.LoadPartial(reader, wanted);
        TensorAssert.Equal(ones(2), wanted["a"], "a");
        TensorAssert.Equal(zeros(1), wanted["b"], "b");
        Assert.Equal(["a"], report.Loaded);
        Assert.Equal([new StateFault(StateFaultKind.Shape, "b", "file has (3), model wants (1)")], report.Left);
    }

    [Fact]
    public void What_fits_is_copied_into_the_tensors_themselves()
    {
        using var scope = NewDisposeScope();
        using var reader = File(("a", tensor([1.5f, 2.5f]).to(ScalarType.BFloat16)), ("n", tensor([3L])), ("s", tensor(0.5f)));
        var parameter = new TorchSharp.Modules.Parameter(zeros(2));
        var wanted = new Dictionary<string, Tensor> { ["n"] = zeros([1], dtype: ScalarType.Int64), ["a"] = parameter, ["s"] = tensor(0.0) };
        StrictState.Load(reader, wanted);
        TensorAssert.Equal(tensor([1.5f, 2.5f]), parameter.detach(), "a");
        TensorAssert.Equal(tensor([3L]), wanted["n"], "n");
        TensorAssert.Equal(tensor(0.5), wanted["s"], "s");
        Assert.True(parameter.requires_grad);
    }

    [Theory]
    [InlineData(ScalarType.Float16, DtypePolicy.ConvertFloats, null)]
    [InlineData(ScalarType.Float16, DtypePolicy.Exact, "file has F32, model wants F16")]
    [InlineData(ScalarType.Float32, DtypePolicy.Exact, null)]
    [InlineData(ScalarType.Int32, DtypePolicy.ConvertFloats, "file has F32, model wants I32")]
    [InlineData(ScalarType.Byte, DtypePolicy.ConvertFloats, "file has F32, model wants U8")]
    public void Dtypes_follow_the_policy(ScalarType wanted, DtypePolicy policy, string? fault)
    {
        using var scope = NewDisposeScope();
        using var reader = File(("a", ones(2)));
        var report = StrictState.LoadPartial(reader, new Dictionary<string, Tensor> { ["a"] = zeros([2], dtype: wanted) }, dtypes: policy);
        Assert.Equal(fault, report.Left.SingleOrDefault()?.Text);
    }

    [Fact]
    public void Bytes_of_another_dtype_are_no_bytes()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("adapter_model.safetensors");
        SafetensorsWriter.Write(path, [new NamedTensor("a", zeros([2], dtype: ScalarType.Byte), "F8_E4M3")]);
        using var reader = SafetensorsReader.Open(path);
        var report = StrictState.LoadPartial(reader, new Dictionary<string, Tensor> { ["a"] = zeros([2], dtype: ScalarType.Byte) });
        Assert.Equal("file has F8_E4M3, model wants U8", report.Left.Single().Text);
    }

    [Fact]
    public void Names_are_translated_by_a_table()
    {
        using var scope = NewDisposeScope();
        var keys = new KeyMap(("layers.{}.query", "model.layers.{}.q_proj"), ("head", "lm_head"));
        using var reader = File(("model.layers.12.q_proj", ones(2)));
        var query = zeros(2);
        StrictState.Load(reader, new Dictionary<string, Tensor> { ["layers.12.query"] = query }, keys: keys);
        TensorAssert.Equal(ones(2), query, "query");
        var e = Assert.Throws<StateMismatchException>(() => StrictState.Load(
            reader, new Dictionary<string, Tensor> { ["layers.12.query"] = query, ["head"] = zeros(1), ["other"] = zeros(1) }, keys: keys));
        Assert.Contains("\n  head: missing from file, where it would be lm_head\n  other: missing from file\n", e.Message);
    }

    [Fact]
    public void A_prefix_too_many_is_seen()
    {
        using var scope = NewDisposeScope();
        using var reader = File(("base_model.model.layers.0.q_proj.weight", ones(2)));
        var e = Assert.Throws<StateMismatchException>(() => StrictState.Load(reader, new Dictionary<string, Tensor> { ["layers.0.q_proj.weight"] = zeros(2) }));
        Assert.Equal("base_model.model.layers.0.q_proj.weight", e.Faults.Single(fault => fault.Kind == StateFaultKind.Missing).Suggestion);
        Assert.Equal("layers.0.q_proj.weight", e.Faults.Single(fault => fault.Kind == StateFaultKind.Unexpected).Suggestion);
        Assert.Equal("adapter_model.safetensors: 2 tensor(s) do not fit.\n  base_model.model.layers.0.q_proj.weight: not in the model; did you mean layers.0.q_proj.weight?\n"
            + "  layers.0.q_proj.weight: missing from file; did you mean base_model.model.layers.0.q_proj.weight?\n"
            + "Nothing was changed. Load the file that was saved from the model, or only what fits with StrictState.LoadPartial.", e.Message);
    }

    [Fact]
    public void Very_many_faults_are_counted_and_kept()
    {
        using var scope = NewDisposeScope();
        using var reader = File(("x", ones(1)));
        var wanted = Enumerable.Range(0, 900).ToDictionary(i => $"layers.{i}.self_attn.q_proj.lora_A.weight", _ => zeros(1));
        var e = Assert.Throws<StateMismatchException>(() => StrictState.Load(reader, wanted));
        Assert.Equal(901, e.Faults.Count);
        Assert.Contains("\n  and 851 more\nNothing was changed.", e.Message);
    }

    [Fact]
    public void Loading_leaves_no_tensor_behind()
    {
        using var value = ones(3);
        using var target = zeros(3);
        SafetensorsWriter.Write(_folder.File("adapter_model.safetensors"), [new NamedTensor("a", value)]);
        LeakGuard.AssertFlat(5, () =>
        {
            using var reader = SafetensorsReader.Open(_folder.File("adapter_model.safetensors"));
            StrictState.Load(reader, new Dictionary<string, Tensor> { ["a"] = target });
        });
    }

    /// <summary>A PyTorch file, which keeps the order.</summary>
    private PickleReader File(params (string Name, Tensor Value)[] tensors)
    {
        string path = _folder.File("adapter_model.safetensors");
        PickleWriter.Write(path, tensors.Select(t => new KeyValuePair<string, Tensor>(t.Name, t.Value)));
        return PickleReader.Open(path);
    }
}
