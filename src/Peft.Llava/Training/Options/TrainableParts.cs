namespace Peft.Llava;

/// <summary>Which parts of a LLaVA learn. One value in place of LLaVA's overlapping flags; contradictions are refused.</summary>
public sealed record TrainableParts
{
    /// <summary>LoRA adapters in the language model.</summary>
    public bool Adapter { get; init; }

    /// <summary>The projector.</summary>
    public bool Projector { get; init; }

    /// <summary>The language model itself (embeddings, layers, norms).</summary>
    public bool LanguageModel { get; init; }

    /// <summary>The output layer.</summary>
    public bool Head { get; init; }

    /// <summary>
    /// The <c>image_newline</c> of a model that has one. Null, the default, is LLaVA's rule: it learns with the language model, and beside LoRA or the head where
    /// it was drawn for this run; one that the base was trained with stays frozen there, and any in stage 1.
    /// </summary>
    public bool? ImageNewline { get; init; }

    /// <summary>
    /// Makes the adapter and then freezes it: what LLaVA does with <c>lora_enable</c> and <c>tune_mm_mlp_adapter</c> together. Saved B stays zero.
    /// </summary>
    public bool FreezeAdapterAfterCreation { get; init; }

    /// <summary>LoRA, and by default the projector beside it: <c>--lora_enable True</c>.</summary>
    public static TrainableParts Lora(bool projector = true) => new() { Adapter = true, Projector = projector };

    /// <summary>The projector alone, stage 1: <c>--tune_mm_mlp_adapter True</c>.</summary>
    public static TrainableParts ProjectorOnly() => new() { Projector = true };

    /// <summary>Language model, head and by default the projector, stage 2 without LoRA.</summary>
    public static TrainableParts Full(bool projector = true) => new() { LanguageModel = true, Head = true, Projector = projector };

    /// <summary>All contradictions: one sentence each.</summary>
    public IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        if (Adapter && (LanguageModel || Head))
            problems.Add("an adapter and the language model itself are both to be trained; choose TrainableParts.Lora() or TrainableParts.Full()");
        if (Adapter && FreezeAdapterAfterCreation)
            problems.Add("the adapter is both to be trained and to be frozen; leave Adapter false to freeze it");
        if (!Adapter && !Projector && !LanguageModel && !Head)
            problems.Add("nothing is to be trained; choose TrainableParts.Lora(), ProjectorOnly() or Full()");
        return problems;
    }
}
