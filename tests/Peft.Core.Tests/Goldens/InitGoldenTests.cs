using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>New adapters as PEFT makes them, from the same seed.</summary>
[Collection(AloneCollection.Name)]
public sealed class InitGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Peft.Testing.Goldens.Rows(
        AdapterCase.Area, c => c.Kind == "init" && c.Json.GetProperty("method").GetString() != "loftq");

    [Theory, MemberData(nameof(Cases)), Trait(Peft.Testing.Goldens.Trait, AdapterCase.Area)]
    public void A_new_adapter_starts_as_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        using var scope = NewDisposeScope();
        using var one = OneLayer.Of(golden);
        manual_seed(golden.Json.GetProperty("torch_seed").GetInt64());
        using var peft = one.GetPeftModel(OneLayer.ConfigOf(golden), options: AdapterCase.Options(golden));
        OneLayer.Compare(golden, peft);
    }
}
