using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests;

public sealed class AnswerEvaluationTests
{
    private static LlavaDataset With(TinyLlava tiny, LlavaSample sample) => new([sample], new SampleEncoder(tiny.Processor));

    [Fact]
    public void Answers_come_in_the_order_of_the_samples_and_do_not_depend_on_the_batch()
    {
        using var tiny = TinyLlava.Create(5);
        using var one = new AnswerEvaluation(tiny.Dataset(7), new AnswerEvaluationOptions { BatchSize = 1, MaxNewTokens = 5 });
        using var many = new AnswerEvaluation(tiny.Dataset(7), new AnswerEvaluationOptions { BatchSize = 3, MaxNewTokens = 5 });
        var answers = many.Run(tiny.Model);
        Assert.Equal(tiny.Dataset(7).Samples.Select(s => s.Id), answers.Select(a => a.Sample.Id));
        Assert.Equal(one.Run(tiny.Model).Select(a => a.Answer), answers.Select(a => a.Answer));
        Assert.Equal(answers.Select(a => a.Answer), many.Run(tiny.Model).Select(a => a.Answer));
        Assert.Equal(["red", "green", "blue", "yellow", "red", "green", "blue"], answers.Select(a => a.Expected));
    }

    [Fact]
    public void The_model_is_in_its_own_mode_afterwards_and_no_tensor_is_left()
    {
        using var tiny = TinyLlava.Create(5);
        tiny.Model.train();
        LeakGuard.AssertFlat(2, () =>
        {
            using var evaluation = new AnswerEvaluation(tiny.Dataset(3), new AnswerEvaluationOptions { MaxNewTokens = 3 });
            evaluation.Run(tiny.Model);
        });
        Assert.True(tiny.Model.training);
    }

    [Fact]
    public void An_answer_is_exact_if_it_is_the_same_text_without_outer_blanks()
    {
        var sample = TinyLlava.Samples(1)[0];
        Assert.True(new EvaluatedAnswer(sample, " red\n", "red").IsExact);
        Assert.False(new EvaluatedAnswer(sample, "red", "Red").IsExact);
    }

    [Fact]
    public void A_sample_without_an_answer_is_refused_by_name()
    {
        using var tiny = TinyLlava.Create();
        var sample = new LlavaSample(0, "lonely", [], [new ConversationTurn("human", "What is this?")]);
        var e = Assert.Throws<ConversationException>(() => new AnswerEvaluation(With(tiny, sample)));
        Assert.EndsWith("sample 'lonely' has 1 turn(s), and an evaluation needs a question and its answer. Add the answer, or leave the sample out.",
            e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_picture_is_told_with_file_and_sample()
    {
        using var tiny = TinyLlava.Create();
        var sample = TinyLlava.Samples(1)[0] with { Images = ["no-such-file.png"] };
        using var evaluation = new AnswerEvaluation(With(tiny, sample));
        var e = Assert.Throws<SampleException>(() => evaluation.Run(tiny.Model));
        Assert.Contains("no-such-file.png", e.Message, StringComparison.Ordinal);
        Assert.Contains("tiny-0", e.Message, StringComparison.Ordinal);
    }
}
