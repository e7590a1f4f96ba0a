namespace Peft.Llava;

/// <summary>How the learning rate runs over a training, by the names of transformers' <c>lr_scheduler_type</c>.</summary>
public enum ScheduleKind
{
    /// <summary><c>linear</c>: down to zero on a straight line.</summary>
    Linear,

    /// <summary><c>cosine</c>: half a cosine wave down to zero (more waves by <see cref="LearningRateSchedule.Cycles"/>).</summary>
    Cosine,

    /// <summary><c>cosine_with_restarts</c>: as many half waves as <see cref="LearningRateSchedule.Cycles"/> says, each from the full rate.</summary>
    CosineWithRestarts,

    /// <summary><c>polynomial</c>: a power of the remaining share, down to a small end rate.</summary>
    Polynomial,

    /// <summary><c>constant</c>: the full rate at every step; warm-up steps are ignored, as in transformers.</summary>
    Constant,

    /// <summary><c>constant_with_warmup</c>: warm-up, then the full rate.</summary>
    ConstantWithWarmup,

    /// <summary><c>inverse_sqrt</c>: one over the square root of the step.</summary>
    InverseSquareRoot,
}
