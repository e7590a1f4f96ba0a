using TorchSharp;
using static TorchSharp.torch;

namespace PlainTransformer;

/// <summary>Eight digits, a mark, and the same digits again, each raised by <paramref name="shift"/> modulo 10.</summary>
internal sealed class DigitTask(int shift)
{
    public const int Digits = 8;
    public const int Vocabulary = 11;
    public const int Length = 2 * Digits;
    private const int Mark = 10;

    /// <summary>Mean cross entropy of the answers to random questions, and the share of answers that are right in all digits.</summary>
    public (Tensor Loss, double Exact) Ask(nn.Module<Tensor, Tensor> model, int count)
    {
        using var scope = NewDisposeScope();
        var question = randint(0, 10, [count, Digits]);
        var answer = (question + shift) % 10;
        var text = cat([question, full([count, 1], Mark, ScalarType.Int64), answer], 1);
        var scores = model.call(text.narrow(1, 0, Length)).narrow(1, Digits, Digits);
        var loss = nn.functional.cross_entropy(scores.reshape(-1, Vocabulary), answer.reshape(-1));
        double exact = scores.argmax(-1).eq(answer).all(1).to(ScalarType.Float32).mean().ToDouble();
        return (loss.MoveToOuterDisposeScope(), exact);
    }
}
