using System.Text.Json;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Adapters as PEFT wrote them, used as PEFT uses them.</summary>
public sealed class StepsGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Peft.Testing.Goldens.Rows(AdapterCase.Area, c => c.Kind == "steps");

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void Steps_give_what_was_recorded(string folder)
    {
        using var scope = NewDisposeScope();
        new StepRunner(new GoldenCase(folder)).Run();
    }

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void A_new_adapter_trains_the_parameters_that_were_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        var names = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf("names.json"))).RootElement.GetProperty("trainable_when_made");
        foreach (var adapter in names.EnumerateObject())
        {
            using var scope = NewDisposeScope();
            using var model = AdapterCase.LoadBase(golden);
            var config = AdapterConfigJson.Read(Path.Combine(golden.PathOf(adapter.Name), AdapterConfigJson.FileName)) with { InferenceMode = false };
            using var peft = Make(model, golden, adapter.Name, config);
            Assert.Equal(adapter.Value.EnumerateArray().Select(e => e.GetString()), peft.TrainableParameters().Select(p => p.Name));
        }
    }

    // Where a key of a pattern matches nothing, which PEFT passes over, making the adapter is an error and loading it is not.
    private static PeftModel Make(ReferenceModel model, GoldenCase golden, string folder, LoraConfig config)
    {
        if (PeftModel.Preview(model, config).Unmatched.Count == 0) return model.GetPeftModel(config, options: AdapterCase.Options(golden));
        Assert.Contains(" matches nothing in the model", Assert.Throws<TargetNotFoundException>(() => model.GetPeftModel(config)).Message, StringComparison.Ordinal);
        return PeftModel.Load(model, golden.PathOf(folder), options: AdapterCase.Options(golden, trainable: true));
    }
}
