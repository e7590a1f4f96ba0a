namespace Peft.Llava;

/// <summary>The optimizers, with transformers' <c>optim</c> name.</summary>
public enum OptimizerKind
{
    /// <summary><c>adamw_torch</c>, and <c>adamw_torch_fused</c>, which differs in speed only and is ours on the CPU anyway.</summary>
    AdamW,

    /// <summary><c>adamw_hf</c>: decay after the step.</summary>
    AdamWTransformers,

    /// <summary><c>adafactor</c>, with the fixed rate that transformers' Trainer gives it.</summary>
    Adafactor,

    /// <summary><c>sgd</c>.</summary>
    Sgd,

    /// <summary><c>adamw_bnb_8bit</c>, <c>adamw_8bit</c>: moments in 8 bits.</summary>
    AdamW8Bit,

    /// <summary><c>paged_adamw_8bit</c>: the same, moments in a file that is mapped into memory.</summary>
    PagedAdamW8Bit,

    /// <summary><c>lion_8bit</c>.</summary>
    Lion8Bit,
}

/// <summary>How the micro-batches of a step weigh.</summary>
public enum StepWeighting
{
    /// <summary>Every supervised token weighs the same over the whole step; a step never spans an epoch's end.</summary>
    SupervisedTokens,

    /// <summary>
    /// As LLaVA: every micro-batch weighs the same however few tokens it supervises; one without any has loss NaN and gradient zero, and the
    /// step is done all the same; text-only batches give the projector a zero gradient, not none; accumulation goes on over an epoch's end.
    /// </summary>
    LlavaExact,
}

/// <summary>Dtypes of a training.</summary>
public enum TrainingPrecision
{
    /// <summary>Weights and computation in float32.</summary>
    Float32,

    /// <summary>
    /// Base in bfloat16, adapter and optimizer state as they are (float32 master weights unless made in bfloat16); products in bfloat16,
    /// softmax, norms and loss in float32. What <c>--bf16 True</c> gives. A float32 base is refused: its weights would not be cast while they are used, as
    /// autocast would, and nothing be computed in bfloat16.
    /// </summary>
    BFloat16,

    /// <summary>
    /// Base in float16, everything that learns in float32; products in float16 under a scaled loss (<see cref="GradientScaler"/>), so that a step
    /// may be skipped. What <c>--fp16 True</c> gives.
    /// </summary>
    Float16,
}

/// <summary>When checkpoints are written, by transformers' <c>save_strategy</c>.</summary>
public enum SaveStrategy
{
    /// <summary><c>no</c>: at the end only, by <c>SaveModel</c>.</summary>
    None,

    /// <summary><c>steps</c>: every <see cref="TrainingOptions.SaveSteps"/> steps.</summary>
    Steps,

    /// <summary><c>epoch</c>: after each epoch.</summary>
    Epoch,
}
