using System.Text.Json;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Does the steps of a recorded case of kind "steps", one after the other, and compares what each gives.</summary>
internal sealed class StepRunner(GoldenCase golden)
{
    private readonly ScalarType _dtype = AdapterCase.Dtype(golden.Json.GetProperty("base_dtype").GetString()!);
    private readonly ReferenceModel _model = AdapterCase.LoadBase(golden);
    private readonly Dictionary<string, Tensor> _inputs = AdapterCase.Tensors(golden, "inputs.safetensors");
    private readonly Dictionary<string, Tensor> _expected = AdapterCase.Tensors(golden, "expected.safetensors");
    private readonly JsonElement _names = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf("names.json"))).RootElement;
    private PeftModel? _peft;

    private PeftModel Peft => _peft ?? throw new InvalidOperationException("The case has unloaded its adapters.");

    public void Run()
    {
        using var noGrad = no_grad();
        foreach (var step in golden.Json.GetProperty("steps").EnumerateArray())
        {
            using var scope = NewDisposeScope();
            Do(step.GetProperty("op").GetString()!, step);
        }
        _peft?.Dispose();
        _model.Dispose();
    }

    private void Do(string op, JsonElement step)
    {
        string? adapter = AdapterCase.Text(step, "adapter"), output = AdapterCase.Text(step, "out");
        switch (op)
        {
            case "load":
                LoadAdapter(golden.PathOf(AdapterCase.Text(step, "folder")!), adapter!);
                break;
            case "forward":
                Forward(step, output!);
                break;
            case "layer":
                Layer(step, output!);
                break;
            case "set":
                Peft.SetActive(AdapterCase.Names(step, "adapters")!);
                break;
            case "merge":
                Peft.Merge(AdapterCase.Names(step, "adapters"), AdapterCase.Flag(step, "safe"));
                break;
            case "unmerge":
                Peft.Unmerge();
                break;
            case "merge_and_unload":
                Peft.MergeAndUnload(AdapterCase.Names(step, "adapters"), AdapterCase.Flag(step, "safe"));
                _peft = null;
                break;
            case "weights":
                foreach (string name in AdapterCase.Names(step, "params")!)
                    AdapterCase.Compare(golden, "weights", _expected[$"{output}/{name}"], AdapterCase.BaseParameter(_model, name), $"{output}/{name}");
                break;
            case "delta":
                Deltas(adapter!, output!, AdapterCase.Names(step, "modules")!);
                break;
            case "factors":
                Factors(adapter!, output!, step);
                break;
            case "scaling" or "ranks":
                Scalings(output!, withRanks: op == "ranks");
                break;
            case "active":
                Assert.Equal(AdapterCase.Names(golden.Json.GetProperty("values"), output!)!, Peft.ActiveAdapters);
                break;
            case "adapters":
                Assert.Equal(AdapterCase.Names(golden.Json.GetProperty("values"), output!)!, Peft.AdapterNames);
                break;
            case "add_weighted":
                AddWeighted(step, adapter!);
                break;
            case "delete":
                Peft.DeleteAdapter(adapter!);
                break;
            case "set_scale":
                // PEFT passes over an adapter that no layer has; here it is an error.
                if (Peft.AdapterNames.Contains(adapter!)) Peft.SetScale(adapter!, AdapterCase.Number(step, "scale")!.Value);
                else Assert.StartsWith($"There is no adapter '{adapter}'", Assert.Throws<AdapterNotFoundException>(() => Peft.SetScale(adapter!, 1)).Message, StringComparison.Ordinal);
                break;
            case "scale_layer":
                Peft.ScaleActive(AdapterCase.Number(step, "scale")!.Value);
                break;
            case "unscale_layer":
                if (AdapterCase.Number(step, "scale") is { } divisor) Peft.ScaleActive(1 / divisor);
                else Peft.ResetScale();
                break;
            case "save":
                Save(step, output!);
                break;
            case "hotswap":
                Peft.HotSwap(golden.PathOf(AdapterCase.Text(step, "folder")!), adapter!);
                break;
            default:
                Assert.Fail($"Unknown step '{op}'.");
                break;
        }
    }

    private void LoadAdapter(string folder, string adapter)
    {
        if (_peft is null) _peft = PeftModel.Load(_model, folder, adapter, AdapterCase.Options(golden));
        else _peft.LoadAdapter(folder, adapter, AdapterCase.Options(golden));
        CheckNames(adapter);
    }

    private void CheckNames(string adapter)
    {
        var rows = _names.GetProperty("adapters").GetProperty(adapter).EnumerateArray().ToList();
        var memory = Peft.NamedParameters(keepShared: true).ToDictionary(p => p.Name, p => p.Parameter);
        var state = Peft.GetAdapterState(adapter);
        Assert.Equal(rows.Select(r => r.GetProperty("disk").GetString()!).Order(StringComparer.Ordinal), state.Keys.Order(StringComparer.Ordinal));
        foreach (var row in rows)
        {
            long[] shape = [.. row.GetProperty("shape").EnumerateArray().Select(e => e.GetInt64())];
            string disk = row.GetProperty("disk").GetString()!;
            Assert.Equal(shape, memory[row.GetProperty("memory").GetString()!].shape);
            Assert.Equal(shape, state[disk].shape);
            Assert.Equal(AdapterCase.Dtype(row.GetProperty("dtype").GetString()!), state[disk].dtype);
        }
        foreach (var tensor in state.Values) tensor.Dispose();
    }

    private void Forward(JsonElement step, string output)
    {
        IDisposable? state = null;
        if (AdapterCase.Flag(step, "disabled"))
        {
            // PEFT takes a merged adapter out for good; here the scope would put it back at its end.
            if (Peft.MergedAdapters.Count > 0) Peft.Unmerge();
            state = Peft.WithoutAdapter();
        }
        else if (AdapterCase.Names(step, "adapter_names") is { } bySample)
        {
            state = Peft.WithAdaptersBySample(bySample);
        }
        var inputs = _inputs.ToDictionary(i => i.Key, i => is_floating_point(i.Value) ? i.Value.to(_dtype) : i.Value);
        using (state) AdapterCase.CompareOutputs(golden, _inputs, _expected[output], _model.Run(new ReferenceInputs(inputs)), output);
    }

    private void Layer(JsonElement step, string output)
    {
        var layer = Peft.LayerAt(AdapterCase.Text(step, "module")!)!;
        var result = layer.call(_inputs[AdapterCase.Text(step, "x")!].to(_dtype));
        Assert.Equal(_expected[output].dtype, result.dtype);
        AdapterCase.Compare(golden, "layer", _expected[output], result, output);
    }

    private void Deltas(string adapter, string output, string[] modules)
    {
        foreach (string module in modules)
        {
            var layer = Peft.LayerAt(module)!;
            var delta = layer.DeltaWeight(adapter);
            if (layer.Original is TransposedFrozenLinear) delta = delta.t();
            AdapterCase.Compare(golden, "deltas", _expected[$"{output}/{module}"], delta, $"{output}/{module}");
        }
    }

    private void Factors(string adapter, string output, JsonElement step)
    {
        foreach (string module in AdapterCase.Names(step, "modules")!)
        {
            var found = Peft.LayerAt(module)!.Adapters[adapter];
            var product = found.B.flatten(1).matmul(found.A.flatten(1)) * found.Scaling;
            AdapterCase.Compare(golden, "factors", _expected[$"{output}/{module}/product"], product, $"{output}/{module}/product");
            if (_expected.TryGetValue($"{output}/{module}/A", out var a)) AdapterCase.Compare(golden, "factors", a, found.A, $"{output}/{module}/A");
            if (_expected.TryGetValue($"{output}/{module}/B", out var b)) AdapterCase.Compare(golden, "factors", b, found.B, $"{output}/{module}/B");
            var values = golden.Json.GetProperty("values").GetProperty(output).GetProperty(module);
            Assert.Equal(values.GetProperty("r").GetInt32(), found.Rank);
            Assert.Equal(values.GetProperty("alpha").GetDouble(), found.Alpha, 9);
            Assert.Equal(values.GetProperty("scaling").GetDouble(), found.Scaling, 9);
            Assert.Equal(values.GetProperty("A_shape").EnumerateArray().Select(e => e.GetInt64()), found.A.shape);
            Assert.Equal(values.GetProperty("B_shape").EnumerateArray().Select(e => e.GetInt64()), found.B.shape);
        }
    }

    private void AddWeighted(JsonElement step, string adapter)
    {
        double[] weights = [.. step.GetProperty("weights").EnumerateArray().Select(e => e.GetDouble())];
        var type = Enum.Parse<CombinationType>(AdapterCase.Text(step, "type")!.Replace("_", "", StringComparison.Ordinal), ignoreCase: true);
        Peft.AddWeightedAdapter(AdapterCase.Names(step, "adapters")!, weights, adapter, type, new CombinationOptions
        {
            Density = AdapterCase.Number(step, "density"),
            SvdRank = (int?)AdapterCase.Number(step, "svd_rank"),
            MajoritySign = AdapterCase.Text(step, "majority_sign_method") == "frequency" ? MajoritySign.Frequency : MajoritySign.Total,
            Masks = File.Exists(golden.PathOf("masks.safetensors")) ? new RecordedMasks(AdapterCase.Tensors(golden, "masks.safetensors"), adapter) : null,
        });
    }

    private void Scalings(string output, bool withRanks)
    {
        var recorded = golden.Json.GetProperty("values").GetProperty(output);
        var layers = Peft.Layers.ToDictionary(l => l.ModulePath);
        Assert.Equal(recorded.EnumerateObject().Select(m => m.Name).Order(StringComparer.Ordinal), layers.Keys.Order(StringComparer.Ordinal));
        foreach (var module in recorded.EnumerateObject())
        {
            var adapters = layers[module.Name].Adapters;
            Assert.Equal(module.Value.EnumerateObject().Select(a => a.Name).Order(StringComparer.Ordinal), adapters.Keys.Order(StringComparer.Ordinal));
            foreach (var recordedAdapter in module.Value.EnumerateObject())
            {
                var found = adapters[recordedAdapter.Name];
                double[] wanted = recordedAdapter.Value.ValueKind == JsonValueKind.Array
                    ? [.. recordedAdapter.Value.EnumerateArray().Select(e => e.GetDouble())]
                    : [recordedAdapter.Value.GetDouble()];
                double[] got = withRanks ? [found.Rank, found.Alpha, found.Scaling] : [found.Scaling];
                Assert.Equal(wanted.Length, got.Length);
                for (int i = 0; i < wanted.Length; i++) Assert.Equal(wanted[i], got[i], 9);
            }
        }
    }

    private void Save(JsonElement step, string output)
    {
        string folder = Directory.CreateTempSubdirectory("peft-save-").FullName;
        try
        {
            Peft.Save(folder, AdapterCase.Names(step, "adapters"));
            var written = Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(folder, f).Replace('\\', '/'));
            Assert.Equal(AdapterCase.Names(golden.Json.GetProperty("values"), output)!, written.Order(StringComparer.Ordinal));
            string recorded = golden.PathOf(AdapterCase.Text(step, "folder")!);
            foreach (string file in written)
                Assert.True(File.ReadAllBytes(Path.Combine(recorded, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(folder, file))), $"{file} differs from the recorded one.");
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private sealed class RecordedMasks(Dictionary<string, Tensor> masks, string adapter) : IPruningMasks
    {
        public Tensor Draw(string module, string part, string source, Tensor values, double density)
            => masks[$"{adapter}/{module}/{part}/{source}"].clone().DetachFromDisposeScope();
    }
}
