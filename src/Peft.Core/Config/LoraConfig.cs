using System.Text.Json;

namespace Peft.Core;

/// <summary>
/// Settings of one LoRA adapter, with PEFT's meanings. Its file form is <c>adapter_config.json</c>: see <see cref="AdapterConfigJson"/>.
/// </summary>
/// <remarks>Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021: W + (alpha / r) B A.</remarks>
public sealed record LoraConfig
{
    /// <summary><c>r</c>: columns of B and rows of A.</summary>
    public int Rank { get; init; } = 8;

    /// <summary><c>lora_alpha</c>: the adapter's output is scaled by alpha / r, with <see cref="UseRsLora"/> by alpha / sqrt(r).</summary>
    public double Alpha { get; init; } = 8;

    /// <summary><c>lora_dropout</c>: probability with which an input element of A is dropped in training; 0 up to but not 1.</summary>
    public double Dropout { get; init; }

    /// <summary><c>target_modules</c>: the layers that get LoRA.</summary>
    public TargetModules? TargetModules { get; init; }

    /// <summary><c>exclude_modules</c>: layers that get none although <see cref="TargetModules"/> means them.</summary>
    public TargetModules? ExcludeModules { get; init; }

    /// <summary><c>bias</c>: which biases are trained.</summary>
    public LoraBias Bias { get; init; }

    /// <summary><c>modules_to_save</c>: modules that are trained in full, as a copy, and saved with the adapter.</summary>
    public IReadOnlyList<string>? ModulesToSave { get; init; }

    /// <summary><c>rank_pattern</c>: ranks of single layers; a key K means a path that matches <c>(.*\.)?(K)$</c>, and the first such key counts.</summary>
    public IReadOnlyDictionary<string, int> RankPattern { get; init; } = new OrderedDictionary<string, int>();

    /// <summary><c>alpha_pattern</c>: alphas of single layers, by the same rule.</summary>
    public IReadOnlyDictionary<string, double> AlphaPattern { get; init; } = new OrderedDictionary<string, double>();

    /// <summary><c>use_rslora</c>: scale by alpha / sqrt(r) (Kalajdzievski 2023).</summary>
    public bool UseRsLora { get; init; }

    /// <summary><c>use_dora</c>: train the norm of each output row apart from its direction (Liu et al. 2024).</summary>
    public bool UseDora { get; init; }

    /// <summary><c>lora_bias</c>: B has a bias of its own.</summary>
    public bool LoraBOwnBias { get; init; }

    /// <summary><c>fan_in_fan_out</c>: kept for the file; the layers themselves say how their weight is stored.</summary>
    public bool FanInFanOut { get; init; }

    /// <summary><c>init_lora_weights</c>.</summary>
    public LoraInit Init { get; init; } = LoraInit.Default;

    /// <summary><c>loftq_config</c>; read with <see cref="LoraInit.Loftq"/> only.</summary>
    public LoftqSettings? Loftq { get; init; }

    /// <summary><c>layers_to_transform</c>: only these layer numbers; null for all.</summary>
    public IReadOnlyList<int>? LayersToTransform { get; init; }

    /// <summary><c>layers_pattern</c>: the path segment before the layer number; null for the first number there is.</summary>
    public IReadOnlyList<string>? LayersPattern { get; init; }

    /// <summary><c>layer_replication</c>: the stack is rebuilt from the layers [start, end) of each pair, sharing weights.</summary>
    public IReadOnlyList<(int Start, int End)>? LayerReplication { get; init; }

    /// <summary>
    /// <c>trainable_token_indices</c>: rows of an embedding that are trained, by the embedding's name; the name "" means the model's input embedding.
    /// </summary>
    public IReadOnlyDictionary<string, IReadOnlyList<long>>? TrainableTokens { get; init; }

    /// <summary><c>target_parameters</c>: weights of linear layers, by the end of their name, that get LoRA without dropout.</summary>
    public IReadOnlyList<string>? TargetParameters { get; init; }

    /// <summary><c>ensure_weight_tying</c>: what adapts one of two tied embedding layers adapts the other, too.</summary>
    public bool EnsureWeightTying { get; init; }

    /// <summary><c>task_type</c>, kept for the file.</summary>
    public string? TaskType { get; init; }

    /// <summary><c>inference_mode</c>: an adapter loaded with it is not trained.</summary>
    public bool InferenceMode { get; init; }

    /// <summary><c>base_model_name_or_path</c>: what the adapter was made for.</summary>
    public string? BaseModel { get; init; }

    /// <summary>
    /// The fields of the file that this was read from, each as it stood there: fields this library has no property for are written again, and
    /// fields that were not changed are written in the same form.
    /// </summary>
    public IReadOnlyDictionary<string, JsonElement> Source { get; init; } = new Dictionary<string, JsonElement>();

    /// <summary>Everything in these settings that cannot be, without looking at a model.</summary>
    /// <returns>One sentence each; empty if there is nothing.</returns>
    public IReadOnlyList<string> Problems() => LoraConfigProblems.Of(this);

    /// <summary>Throws if there are <see cref="Problems"/>.</summary>
    /// <exception cref="InvalidLoraConfigException">All of them.</exception>
    public void Validate()
    {
        var problems = Problems();
        if (problems.Count > 0) throw new InvalidLoraConfigException(problems);
    }

    /// <summary>The scaling that a rank and an alpha give.</summary>
    /// <param name="rank">The layer's rank.</param>
    /// <param name="alpha">The layer's alpha.</param>
    /// <returns>alpha / r or alpha / sqrt(r).</returns>
    public double ScalingOf(int rank, double alpha) => UseRsLora ? alpha / Math.Sqrt(rank) : alpha / rank;
}
