namespace Peft.Llava;

/// <summary>What tower and projector take. The projector may have a dtype of its own, float32 beside a float16 tower.</summary>
internal sealed class VisionMemory(LlavaConfig config, MemoryShape shape, bool trainsProjector, long projectorSize, bool cached)
{
    private VisionConfig Vision => config.Vision!;

    private bool Runs => config.HasVision && shape.Tiles > 0;

    /// <summary>Pixels of the batch, which lives as long as the step.</summary>
    public long Pixels => Runs && !cached ? shape.Tiles * Vision.ChannelCount * Vision.ImageSize * Vision.ImageSize * sizeof(float) : 0;

    private long Patches => shape.Tiles * (Vision.PatchCount + 1);

    /// <summary>The tower's features.</summary>
    public long Features => FeatureElements * shape.Size;

    private long FeatureElements => Runs ? shape.Tiles * config.FeaturesPerTile * Vision.HiddenSize : 0;

    /// <summary>The tower at its largest: within attention or within the MLP of a layer.</summary>
    public long Tower
    {
        get
        {
            if (!Runs || cached) return 0;
            long side = Vision.PatchCount + 1, e = shape.Size, width = Patches * Vision.HiddenSize * e;
            long attention = 6 * width + 3 * shape.Tiles * Vision.HeadCount * side * side * e;
            long mlp = 3 * width + 4 * Patches * Vision.IntermediateSize * e;
            return Math.Max(attention, mlp);
        }
    }

    /// <summary>What the projector keeps: its input, and input and output of each GELU.</summary>
    public long ProjectorKept
    {
        get
        {
            if (!Runs || !trainsProjector) return 0;
            long gelus = Math.Max(0, (config.Projector.LinearCount ?? 0) - 1);
            return (FeatureElements + 2 * gelus * shape.Features * config.Language.HiddenSize) * projectorSize;
        }
    }

    /// <summary>What the forward pass holds until the loss is there: features, projected, gathered, token vectors before and after the merge.</summary>
    public long HeldInForward
    {
        get
        {
            long width = config.Language.HiddenSize * shape.Size;
            return Runs ? Features + 2 * shape.Features * config.Language.HiddenSize * projectorSize + 2 * shape.Rows * width : shape.Rows * width;
        }
    }
}
