namespace Peft.Llava;

/// <summary>What LLaVA's training script is told: the model, the data and the training.</summary>
public sealed record LlavaArguments
{
    /// <summary>The model.</summary>
    public LlavaModelArguments Model { get; init; } = new();

    /// <summary>The data.</summary>
    public LlavaDataArguments Data { get; init; } = new();

    /// <summary>The adapter.</summary>
    public LlavaLoraArguments Lora { get; init; } = new();

    /// <summary>The training.</summary>
    public TrainingOptions Training { get; init; } = new();

    /// <summary>The run itself: where it goes on, who watches, and what became of each flag.</summary>
    public LlavaRunArguments Run { get; init; } = new();
}

/// <summary>LLaVA's <c>ModelArguments</c>.</summary>
public sealed record LlavaModelArguments
{
    /// <summary><c>--model_name_or_path</c>: the folder of the base. Required.</summary>
    public string ModelPath { get; init; } = "";

    /// <summary><c>--version</c>: the conversation template.</summary>
    public string Version { get; init; } = "v0";

    /// <summary><c>--vision_tower</c>: the tower's folder; null for the one that the base names or holds.</summary>
    public string? VisionTower { get; init; }

    /// <summary><c>--pretrain_mm_mlp_adapter</c>: a stage-1 <c>mm_projector.bin</c>.</summary>
    public string? ProjectorWeights { get; init; }

    /// <summary><c>--mm_projector_type</c> of a new projector, <c>linear</c> where it is null. A LLaVA keeps its own, as with the two that follow.</summary>
    public string? ProjectorType { get; init; }

    /// <summary><c>--mm_vision_select_layer</c> of a new projector, -1 where it is null.</summary>
    public int? VisionSelectLayer { get; init; }

    /// <summary><c>--mm_vision_select_feature</c> of a new projector: <c>patch</c>, also where it is null, or <c>cls_patch</c>.</summary>
    public string? VisionSelectFeature { get; init; }

    /// <summary><c>--mm_patch_merge_type</c>; null for the base's, and <c>flat</c> on a language model.</summary>
    public string? PatchMergeType { get; init; }

    /// <summary><c>--mm_use_im_start_end</c>; null for what the base was trained with.</summary>
    public bool? UseImageStartEnd { get; init; }

    /// <summary><c>--mm_use_im_patch_token</c>.</summary>
    public bool UseImagePatchToken { get; init; } = true;

    /// <summary>
    /// Keeps the tower in float16 where the rest is float32, as LLaVA's script leaves it without <c>--bf16</c>. No flag sets it: a float32 tower is
    /// more exact, and faster on the CPU.
    /// </summary>
    public bool HalfPrecisionTower { get; init; }

    /// <summary><c>--bits</c>: 16, 8 or 4.</summary>
    public int Bits { get; init; } = 16;

    /// <summary><c>--quant_type</c>: <c>nf4</c> or <c>fp4</c>.</summary>
    public string QuantType { get; init; } = "nf4";

    /// <summary><c>--double_quant</c>.</summary>
    public bool DoubleQuantization { get; init; } = true;
}

/// <summary>LLaVA's <c>DataArguments</c>.</summary>
public sealed record LlavaDataArguments
{
    /// <summary><c>--data_path</c>: the conversations. Required.</summary>
    public string DataPath { get; init; } = "";

    /// <summary><c>--image_folder</c>.</summary>
    public string? ImageFolder { get; init; }

    /// <summary>
    /// <c>--image_aspect_ratio</c>: <c>square</c>, <c>pad</c> or <c>anyres</c>. Null is <c>square</c> with <c>--vision_tower</c>, otherwise what the base has.
    /// </summary>
    public string? ImageAspectRatio { get; init; }
}

/// <summary>The LoRA flags of LLaVA's <c>TrainingArguments</c>.</summary>
public sealed record LlavaLoraArguments
{
    /// <summary><c>--lora_enable</c>.</summary>
    public bool Enabled { get; init; }

    /// <summary><c>--lora_r</c>.</summary>
    public int Rank { get; init; } = 64;

    /// <summary><c>--lora_alpha</c>.</summary>
    public int Alpha { get; init; } = 16;

    /// <summary><c>--lora_dropout</c>.</summary>
    public double Dropout { get; init; } = 0.05;

    /// <summary><c>--lora_bias</c>: <c>none</c>, <c>all</c> or <c>lora_only</c>.</summary>
    public string Bias { get; init; } = "none";
}
