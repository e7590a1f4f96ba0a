using Xunit;

namespace Peft.Core.Tests;

public sealed class AdapterConfigJsonTests
{
    public static TheoryData<string, string> Wrong => new()
    {
        { "{\"peft_type\": \"LORA\", \"r\": 2.5}", "r must be a whole number, got 2.5" },
        { "{\"peft_type\": \"LORA\", \"r\": \"8\"}", "r must be a whole number, got \"8\"" },
        { "{\"peft_type\": \"LORA\"}", "r is missing; without it the adapter's tensors cannot be checked" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"bias\": \"some\"}", "bias must be 'none', 'all' or 'lora_only', got \"some\"" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": null}", "lora_alpha must be a number, got null" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"use_dora\": 1}", "use_dora must be true or false, got 1" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"target_modules\": 3}", "target_modules must be a list of texts, got 3" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"task_type\": 3}", "task_type must be a text, got 3" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"rank_pattern\": [1]}", "rank_pattern must be an object, got [1]" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"init_lora_weights\": 3}", "init_lora_weights must be true, false or a text, got 3" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"layer_replication\": [[1]]}", "layer_replication must be a list of pairs, got [[1]]" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"trainable_token_indices\": {\"embed_tokens\": 3}}", "trainable_token_indices['embed_tokens'] must be a list of token ids, got 3" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"use_rslora\": \"yes\"}", "use_rslora must be true or false, got \"yes\"" },
        { "{\"peft_type\": \"LORA\", \"r\": 8, \"modules_to_save\": [null]}", "modules_to_save must be a list of texts, got [null]" },
        { "{\"r\": 8}", "peft_type is missing; is this an adapter_config.json?" },
        { "[1]", "the text is no JSON object" },
    };

    public static TheoryData<string, string> NotThere => new()
    {
        { "\"peft_type\": \"IA3\"", "peft_type \"IA3\"" },
        { "\"peft_type\": \"LORA\", \"use_qalora\": true", "use_qalora = true" },
        { "\"peft_type\": \"LORA\", \"corda_config\": {\"rho\": 2}", "corda_config = {\"rho\": 2}" },
        { "\"peft_type\": \"LORA\", \"corda_config\": {\"corda_method\": \"kpm\"}", "corda_config = {\"corda_method\": \"kpm\"}" },
        { "\"peft_type\": \"LORA\", \"of_the_future\": [1]", "of_the_future = [1]" },
        { "\"peft_type\": \"LORA\", \"megatron_config\": {\"a\": 1}, \"arrow_config\": {\"b\": 2}", "megatron_config = {\"a\": 1}, arrow_config = {\"b\": 2}" },
    };

    [Theory, MemberData(nameof(Wrong))]
    public void A_field_that_cannot_be_is_named(string json, string problem)
        => Assert.Equal($"LoraConfig: {problem}.", Assert.Throws<InvalidLoraConfigException>(() => AdapterConfigJson.Parse(json)).Message);

    [Fact]
    public void Text_that_is_no_JSON_is_said()
        => Assert.StartsWith("LoraConfig: the text is no JSON: ", Assert.Throws<InvalidLoraConfigException>(() => AdapterConfigJson.Parse("{")).Message);

    [Theory, MemberData(nameof(NotThere))]
    public void A_feature_that_is_not_there_is_refused_by_name(string fields, string named)
    {
        var e = Assert.Throws<UnsupportedAdapterFeatureException>(() => AdapterConfigJson.Parse($"{{{fields}, \"r\": 8}}"));
        Assert.Equal($"The adapter uses {named}, which this library does not have; ignoring it would give other results. Merge the adapter into its base "
            + "with PEFT and load the merged model, or use an adapter without it.", e.Message);
    }

    [Fact]
    public void Messages_about_a_file_begin_with_its_path()
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, "{\"peft_type\": \"LORA\", \"r\": 0.5}");
            Assert.Equal($"{file}: r must be a whole number, got 0.5.", Assert.Throws<InvalidLoraConfigException>(() => AdapterConfigJson.Read(file)).Message);
            File.WriteAllText(file, "{\"peft_type\": \"LORA\", \"r\": 4, \"use_bdlora\": true}");
            Assert.StartsWith($"{file} uses use_bdlora = true", Assert.Throws<UnsupportedAdapterFeatureException>(() => AdapterConfigJson.Read(file)).Message);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void Unknown_fields_that_are_off_are_kept()
    {
        const string json = "{\n  \"of_the_future\": false,\n  \"peft_type\": \"LORA\",\n  \"r\": 3\n}";
        Assert.Equal(json, AdapterConfigJson.Write(AdapterConfigJson.Parse(json)));
    }

    [Fact]
    public void A_changed_field_is_written_changed_and_the_others_as_they_were()
    {
        var config = AdapterConfigJson.Parse("{\"lora_alpha\": 16.0, \"lora_dropout\": 5e-2, \"peft_type\": \"LORA\", \"r\": 3}");
        Assert.Equal("{\n  \"lora_alpha\": 16.0,\n  \"lora_dropout\": 5e-2,\n  \"peft_type\": \"LORA\",\n  \"r\": 5\n}", AdapterConfigJson.Write(config with { Rank = 5 }));
    }

    [Fact]
    public void Numbers_and_texts_are_written_as_Python_writes_them()
    {
        Assert.Equal("1e-05", PythonJson.Write(PythonJson.Float(1e-5)));
        Assert.Equal("0.0", PythonJson.Write(PythonJson.Float(0)));
        Assert.Equal("12", PythonJson.Write(PythonJson.Number(12)));
        Assert.Equal("2.5", PythonJson.Write(PythonJson.Number(2.5)));
        Assert.Equal("\"\\u00e4\\n\\\"\\ud83d\\ude00\"", PythonJson.Write("ä\n\"😀"));
    }
}
