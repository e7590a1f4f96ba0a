using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Checkpoints;

/// <summary>Adapters of llava-hf bases have the module names of the transformers version that they were trained with.</summary>
[Trait("Fault", "lora-14")]
public sealed class AdapterNamesTests
{
    private static string BaseLlava => Path.Combine(Goldens.Roots[0], "bitsandbytes", "_base_llava");

    public static TheoryData<HuggingFaceKeyStyle, HuggingFaceKeyStyle, LoraConfig> Ways()
    {
        var ways = new TheoryData<HuggingFaceKeyStyle, HuggingFaceKeyStyle, LoraConfig>();
        var config = new LoraConfig { Rank = 2, Alpha = 3 };
        foreach (var from in Enum.GetValues<HuggingFaceKeyStyle>())
        {
            foreach (var to in Enum.GetValues<HuggingFaceKeyStyle>().Where(s => s != from))
            {
                ways.Add(from, to, config with { TargetModules = ["q_proj"], ModulesToSave = ["multi_modal_projector"] });
                ways.Add(from, to, config with
                {
                    TargetModules = TargetModules.Regex(@".*language_model.*\.(v_proj|down_proj)|.*vision.*\.1\..*fc1"),
                    RankPattern = new Dictionary<string, int> { [@"vision.*fc1"] = 4, ["layers.0.mlp.down_proj"] = 3 }, AlphaPattern = new Dictionary<string, double> { ["v_proj"] = 5 },
                });
                ways.Add(from, to, config with { TargetModules = ["fc1", "q_proj"], ExcludeModules = TargetModules.Regex(@".*language_model.*"), TaskType = "CAUSAL_LM" });
            }
        }
        return ways;
    }

    [Theory, MemberData(nameof(Ways))]
    public void An_adapter_with_the_names_of_another_version_is_loaded_as_it_is_and_saved_with_the_present_ones(
        HuggingFaceKeyStyle from, HuggingFaceKeyStyle to, LoraConfig config)
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var again = new TemporaryFolder();
        using var model = LlavaModel.Load(BaseLlava);
        model.AdapterNames = from;
        Dictionary<string, (Tensor A, Tensor B, int Rank, double Alpha)> wanted;
        using (var peft = model.GetPeftModel(config))
        {
            using var noGrad = no_grad();
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(randn_like(parameter) * 0.1);
            peft.Save(folder.Path);
            wanted = peft.Layers.ToDictionary(l => model.ToInternal(l.ModulePath), l => Content(l.Adapters["default"]));
        }
        model.AdapterNames = to;
        using (var peft = PeftModel.Load(model, folder.Path, "other"))
        {
            var got = peft.Layers.ToDictionary(l => model.ToInternal(l.ModulePath), l => Content(l.Adapters["other"]));
            Assert.Equal(wanted.Keys.Order(StringComparer.Ordinal), got.Keys.Order(StringComparer.Ordinal));
            foreach (var (path, (a, b, rank, alpha)) in wanted)
            {
                Assert.Equal((rank, alpha), (got[path].Rank, got[path].Alpha));
                TensorAssert.Equal(a, got[path].A, path + ".A");
                TensorAssert.Equal(b, got[path].B, path + ".B");
            }
            Assert.Equal(config.ModulesToSave?.Count ?? 0, peft.Hosts.OfType<ModuleToSave>().Count());
            peft.Save(again.Path);
            peft.HotSwap(folder.Path, "other");
        }
        using var own = PeftModel.Load(model, Path.Combine(again.Path, "other"));
        Assert.Equal(wanted.Count, own.Layers.Count());
        using var files = AdapterFolder.Open(Path.Combine(again.Path, "other"));
        Assert.All(files.Tensors.Entries.Keys, key => Assert.NotNull(HuggingFaceKeys.ToInternal(key["base_model.model.".Length..], to)));
    }

    private static (Tensor A, Tensor B, int Rank, double Alpha) Content(LoraAdapter adapter) => (adapter.A.detach().clone(), adapter.B.detach().clone(), adapter.Rank, adapter.Alpha);
}
