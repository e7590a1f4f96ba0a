using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace PlainTransformer;

/// <summary>
/// A decoder written with TorchSharp alone. All that it does for LoRA is to declare the layers that may be replaced as
/// <c>Module&lt;Tensor, Tensor&gt;</c> instead of <c>Linear</c>.
/// </summary>
internal sealed class TinyTransformer : nn.Module<Tensor, Tensor>
{
    private const int Width = 64;
    private const int Layers = 2;
    private readonly nn.Module<Tensor, Tensor> tokens = nn.Embedding(DigitTask.Vocabulary, Width);
    private readonly nn.Module<Tensor, Tensor> places = nn.Embedding(DigitTask.Length, Width);
    private readonly ModuleList<Block> blocks = new([.. Enumerable.Range(0, Layers).Select(_ => new Block(Width))]);
    private readonly nn.Module<Tensor, Tensor> norm = nn.LayerNorm(Width);
    private readonly nn.Module<Tensor, Tensor> head = nn.Linear(Width, DigitTask.Vocabulary);

    public TinyTransformer()
        : base(nameof(TinyTransformer)) => RegisterComponents();

    /// <summary>I64 (B, T) to scores (B, T, vocabulary).</summary>
    public override Tensor forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        var x = tokens.call(input) + places.call(arange(input.shape[1]));
        foreach (var block in blocks) x = block.call(x);
        return head.call(norm.call(x)).MoveToOuterDisposeScope();
    }

    private sealed class Block : nn.Module<Tensor, Tensor>
    {
        private const int Heads = 4;
        private readonly nn.Module<Tensor, Tensor> norm1;
        private readonly nn.Module<Tensor, Tensor> query;
        private readonly nn.Module<Tensor, Tensor> key;
        private readonly nn.Module<Tensor, Tensor> value;
        private readonly nn.Module<Tensor, Tensor> output;
        private readonly nn.Module<Tensor, Tensor> norm2;
        private readonly nn.Module<Tensor, Tensor> up;
        private readonly nn.Module<Tensor, Tensor> down;

        public Block(int width)
            : base(nameof(Block))
        {
            (norm1, norm2) = (nn.LayerNorm(width), nn.LayerNorm(width));
            (query, key, value, output) = (nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width));
            (up, down) = (nn.Linear(width, 4 * width), nn.Linear(4 * width, width));
            RegisterComponents();
        }

        public override Tensor forward(Tensor input)
        {
            using var scope = NewDisposeScope();
            var y = norm1.call(input);
            var mixed = nn.functional.scaled_dot_product_attention(Split(query.call(y)), Split(key.call(y)), Split(value.call(y)), is_casual: true);
            var x = input + output.call(mixed.transpose(1, 2).reshape(input.shape));
            return (x + down.call(nn.functional.gelu(up.call(norm2.call(x))))).MoveToOuterDisposeScope();
        }

        private static Tensor Split(Tensor x) => x.reshape(x.shape[0], x.shape[1], Heads, -1).transpose(1, 2);
    }
}
