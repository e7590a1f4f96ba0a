namespace Peft.Llava;

/// <summary>
/// LLaVA's <c>conv_templates</c>, by LLaVA's names. A template of one's own is a <see cref="ConversationTemplate"/> like these; it needs no
/// registration.
/// </summary>
public static class Templates
{
    private const string PoliteHuman = "A chat between a curious human and an artificial intelligence assistant. "
        + "The assistant gives helpful, detailed, and polite answers to the human's questions.";

    private const string PoliteUser = "A chat between a curious user and an artificial intelligence assistant. "
        + "The assistant gives helpful, detailed, and polite answers to the user's questions.";

    private const string Tagged = "A chat between a curious user and an artificial intelligence assistant. "
        + "The assistant is able to understand the visual content that the user provides, and assist the user with a variety of tasks "
        + "using natural language.The visual content will be provided with the following format: <Image>visual content</Image>.";

    private const string Llama2System = "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
        + "being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
        + "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
        + "If a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. "
        + "If you don't know the answer to a question, please don't share false information.";

    private const string LlavaLlama2System = "You are a helpful language and vision assistant. "
        + "You are able to understand the visual content that the user provides, "
        + "and assist the user with a variety of tasks using natural language.";

    private const string MptSystem = "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
        + "The assistant gives helpful and honest answers.";

    private const string ExampleQuestion = "What are the key differences between renewable and non-renewable energy sources?";

    private const string ExampleAnswer =
        "Renewable energy sources are those that can be replenished naturally in a relatively "
        + "short amount of time, such as solar, wind, hydro, geothermal, and biomass. "
        + "Non-renewable energy sources, on the other hand, are finite and will eventually be "
        + "depleted, such as coal, oil, and natural gas. Here are some key differences between "
        + "renewable and non-renewable energy sources:\n"
        + "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "
        + "energy sources are finite and will eventually run out.\n"
        + "2. Environmental impact: Renewable energy sources have a much lower environmental impact "
        + "than non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, "
        + "and other negative effects.\n"
        + "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically "
        + "have lower operational costs than non-renewable sources.\n"
        + "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote "
        + "locations than non-renewable sources.\n"
        + "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different "
        + "situations and needs, while non-renewable sources are more rigid and inflexible.\n"
        + "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
        + "non-renewable sources are not, and their depletion can lead to economic and social instability.\n";

    /// <summary>All templates, by name.</summary>
    public static IReadOnlyDictionary<string, ConversationTemplate> All { get; } = MakeAll().ToDictionary(t => t.Name, StringComparer.Ordinal);

    /// <summary>LLaVA's default conversation, <c>vicuna_v1</c>.</summary>
    public static ConversationTemplate Default => All["vicuna_v1"];

    /// <summary>The template of a name.</summary>
    /// <param name="name">A key of <see cref="All"/>; LLaVA's <c>--version</c> takes the same names.</param>
    /// <exception cref="TemplateNotFoundException">There is none.</exception>
    public static ConversationTemplate ByName(string name)
        => All.TryGetValue(name, out var template) ? template : throw new TemplateNotFoundException(name, All.Keys);

    private static IEnumerable<ConversationTemplate> MakeAll()
    {
        var vicuna0 = Single("default", PoliteHuman) with
        {
            Examples = [new ChatMessage(Speaker.User, ExampleQuestion), new ChatMessage(Speaker.Assistant, ExampleAnswer)],
        };
        yield return vicuna0;
        yield return vicuna0 with { Name = "v0" };
        yield return Vicuna("v1", PoliteUser);
        yield return Vicuna("vicuna_v1", PoliteUser);
        yield return Llama2("llama_2", Llama2System, "<s>");
        yield return Llama2("mistral_instruct", "", "");
        yield return ChatMl("chatml_direct", "<|im_start|>system\nAnswer the questions.");
        yield return ChatMl("mistral_direct", "<|im_start|>system\nAnswer the questions.");
        yield return Plain("plain");
        yield return Plain("v0_plain");
        yield return Single("llava_v0", PoliteHuman);
        yield return Single("v0_mmtag", Tagged) with { Version = "v0_mmtag" };
        yield return Vicuna("llava_v1", PoliteHuman);
        yield return Vicuna("v1_mmtag", Tagged) with { Version = "v1_mmtag" };
        yield return Llama2("llava_llama_2", LlavaLlama2System, "<s>");
        yield return ChatMl("mpt", MptSystem);
    }

    private static ConversationTemplate Single(string name, string system) => new()
    {
        Name = name, System = system, UserRole = "Human", AssistantRole = "Assistant", Style = SeparatorStyle.Single, Separator = "###",
    };

    private static ConversationTemplate Vicuna(string name, string system) => new()
    {
        Name = name, System = system, UserRole = "USER", AssistantRole = "ASSISTANT", Style = SeparatorStyle.Two,
        Separator = " ", Separator2 = "</s>", Version = "v1",
    };

    private static ConversationTemplate Llama2(string name, string system, string separator) => new()
    {
        Name = name, System = system, UserRole = "USER", AssistantRole = "ASSISTANT", Style = SeparatorStyle.Llama2,
        Separator = separator, Separator2 = "</s>", Version = "llama_v2",
    };

    private static ConversationTemplate ChatMl(string name, string system) => new()
    {
        Name = name, System = system, UserRole = "<|im_start|>user\n", AssistantRole = "<|im_start|>assistant\n",
        Style = SeparatorStyle.Mpt, Separator = "<|im_end|>", Version = "mpt",
    };

    private static ConversationTemplate Plain(string name) => new()
    {
        Name = name, System = "", UserRole = "", AssistantRole = "", Style = SeparatorStyle.Plain, Separator = "\n",
    };
}
