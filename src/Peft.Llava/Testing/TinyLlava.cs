using System.Text.Json.Nodes;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// A tiny LLaVA with random weights, its tokenizer and its image processor, for unit tests of a pipeline built on this library: made in
/// milliseconds, from no file. It is a real <see cref="LlavaModel"/> and learns, but it knows nothing.
/// </summary>
/// <remarks>
/// CLIP tower of 2 layers at 28 px (16 features per image), <c>mlp2x_gelu</c>, LLaMA of 2 layers (4 heads, 2 key-value heads, width 32), 256 tokens
/// at most. The same seed always gives the same weights.
/// </remarks>
public sealed class TinyLlava : IDisposable
{
    private const int MaxLength = 256;

    private static readonly VisionConfig Vision = new()
    {
        HiddenSize = 24, IntermediateSize = 40, LayerCount = 2, HeadCount = 3, ImageSize = 28, PatchSize = 7,
    };

    private TinyLlava(LlavaModel model, LlavaProcessor processor) => (Model, Processor) = (model, processor);

    /// <summary>The model, frozen and in evaluation mode, as <see cref="LlavaModel.Load"/> gives one.</summary>
    public LlavaModel Model { get; }

    /// <summary>
    /// A tokenizer of bytes, printable ASCII and a few words that behaves as LLaVA 1.5's, LLaVA's default template, and an image side that pads
    /// pictures to a square and brings them to 28x28. It reads picture files, and makes those of <see cref="Samples"/> itself.
    /// </summary>
    public LlavaProcessor Processor { get; }

    /// <summary>The processor's tokenizer.</summary>
    public LlamaTokenizer Tokenizer => Processor.Tokenizer;

    /// <summary>Makes one.</summary>
    /// <param name="seed">Seed of the weights.</param>
    /// <param name="dtype">Dtype of the weights; null for float32.</param>
    /// <returns>The caller disposes it, and the model with it.</returns>
    public static TinyLlava Create(long seed = 0, ScalarType? dtype = null)
    {
        var tokenizer = TinyTokenizer.Create(MaxLength);
        var model = LlavaModel.CreateRandom(Configuration(tokenizer.Count), seed, dtype);
        var images = new ClipImageProcessor(ImageProcessorConfig.Clip(Vision.ImageSize), AspectPolicy.Pad);
        return new TinyLlava(model, new LlavaProcessor(tokenizer, images, readImage: TinyPictures.Read));
    }

    /// <summary>Samples that can be learned: the colour of a plain picture. Their pictures exist in memory alone.</summary>
    /// <param name="count">How many; the colours take turns.</param>
    /// <returns>Samples with one picture, one question and its answer each.</returns>
    public static IReadOnlyList<LlavaSample> Samples(int count) => [.. Enumerable.Range(0, count).Select(TinyPictures.Sample)];

    /// <summary><see cref="Samples"/> with this processor, ready for training or evaluation.</summary>
    /// <param name="count">How many.</param>
    /// <returns>The data set.</returns>
    public LlavaDataset Dataset(int count) => new(Samples(count), new SampleEncoder(Processor));

    /// <inheritdoc/>
    public void Dispose() => Model.Dispose();

    private static LlavaConfig Configuration(int vocabulary) => LlavaConfig.Parse(
        new JsonObject
        {
            ["architectures"] = new JsonArray("LlavaLlamaForCausalLM"),
            ["model_type"] = "llava_llama",
            ["vocab_size"] = vocabulary,
            ["hidden_size"] = 32,
            ["intermediate_size"] = 56,
            ["num_hidden_layers"] = 2,
            ["num_attention_heads"] = 4,
            ["num_key_value_heads"] = 2,
            ["max_position_embeddings"] = MaxLength,
            ["rms_norm_eps"] = 1e-5,
            ["bos_token_id"] = 1,
            ["eos_token_id"] = 2,
            ["pad_token_id"] = 0,
            ["image_aspect_ratio"] = "pad",
            ["mm_vision_tower"] = "tiny-random-clip",
            ["mm_hidden_size"] = Vision.HiddenSize,
            ["mm_projector_type"] = "mlp2x_gelu",
            ["mm_vision_select_layer"] = -2,
            ["mm_vision_select_feature"] = "patch",
            ["mm_use_im_start_end"] = false,
            ["mm_use_im_patch_token"] = false,
            ["tokenizer_padding_side"] = "right",
            ["tokenizer_model_max_length"] = MaxLength,
            ["torch_dtype"] = "float32",
        },
        nameof(TinyLlava)).WithVision(Vision);
}
