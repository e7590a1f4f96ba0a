using Xunit;

namespace Peft.Llava.Tests.Data;

/// <summary>Expected texts follow from LLaVA's conversion script by hand: double blanks, labels and empty fields are treated as it does.</summary>
public sealed class ScienceQaTests : IDisposable
{
    private const string Problems = """
        {"3": {"question": "Which is a  solid?", "choices": ["milk", "a rock"], "answer": 1, "hint": " Look. ", "image": "image.png",
               "lecture": "Solids\\nkeep form.", "solution": "A rock  does.", "split": "train"},
         "12": {"question": "Is Question: a word?", "choices": ["no", "yes", "both"], "answer": 2, "hint": "", "image": null, "lecture": "", "solution": ""},
         "bad1": [], "bad2": {"question": "q"}, "bad3": {"question": 1, "choices": ["a"], "answer": 0}, "bad4": {"choices": "a"},
         "bad5": {"question": "q", "choices": ["a"], "answer": 1}, "bad6": {"question": "q", "choices": ["a"], "answer": "a"}, "bad7": {"choices": []}, "bad8": {"question": "q", "choices": ["a"]},
         "bad9": {"choices": ["a", "b", "c", "d", "e", "f"]}, "bad10": {"choices": [5]},
         "bad11": {"question": "q", "choices": ["a"], "answer": 0, "hint": "h", "image": ""}, "bad12": {"choices": ["a"], "answer": 0}}
        """;

    private readonly TinyData _data = new();

    public ScienceQaTests()
    {
        _data.File("problems.json", Problems);
        _data.File("pid_splits.json", """
            {"train": ["12", "3"], "bad": ["bad1", "bad2", "bad3", "bad4", "bad5", "bad6", "bad7", "bad8", "bad9", "none"], "bad2": ["bad10", "bad11", "bad12"], "odd": ["3", 4]}
            """);
    }

    public void Dispose() => _data.Dispose();

    [Theory]
    [InlineData("QCM-LEA", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock", "Solids\nkeep form. A rock does. The answer is B.")]
    [InlineData("QCM-ELA", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock", "A rock does. Solids\nkeep form. The answer is B.")]
    [InlineData("QCM-LA", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock", "Solids\nkeep form. The answer is B.")]
    [InlineData("QCM-EA", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock", "A rock does. The answer is B.")]
    [InlineData("CQM-A", "Context: Look.\nQuestion: Which is a solid?\nOptions: (A) milk (B) a rock", "The answer is B.")]
    [InlineData("QCML-AL", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock\nBECAUSE: Solids\nkeep form.", "The answer is B. BECAUSE: A rock does.")]
    [InlineData("QCME-AE", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock\nBECAUSE: A rock does.", "The answer is B. BECAUSE: Solids\nkeep form.")]
    [InlineData("QCMLE-ALE", "Which is a solid?\nContext: Look.\nOptions: (A) milk (B) a rock\nBECAUSE: Solids\nkeep form. A rock does.",
        "The answer is B. BECAUSE: Solids\nkeep form. A rock does.")]
    [InlineData("QCLM-AEL", "Which is a solid?\nContext: Look.\nBECAUSE: Solids\nkeep form.\nOptions: (A) milk (B) a rock",
        "The answer is B. BECAUSE: A rock does. Solids\nkeep form.")]
    [InlineData("QCEM-LEPA", "Which is a solid?\nContext: Look.\nBECAUSE: A rock does.\nOptions: (A) milk (B) a rock",
        "LECTURE: Solids\nkeep form.\nSOLUTION: A rock does.\n###\nANSWER: B.")]
    [InlineData("QCLEM-A", "Which is a solid?\nContext: Look.\nBECAUSE: Solids\nkeep form. A rock does.\nOptions: (A) milk (B) a rock", "The answer is B.")]
    public void A_problem_with_an_image_reads_as_LLaVAs_script_writes_it(string format, string question, string answer)
    {
        var dataset = Read(format);
        Assert.Equal(["12", "3"], dataset.Samples.Select(s => s.Id));
        var sample = dataset.Samples[1];
        Assert.Equal([Path.Combine("3", "image.png")], sample.Images);
        Assert.Equal(1, sample.Index);
        Assert.Equal([new ConversationTurn("human", question + "\n<image>"), new ConversationTurn("gpt", answer)], sample.Turns);
    }

    [Theory]
    [InlineData("QCM-LEA", "Is a word?\nContext: N/A\nOptions: (A) no (B) yes (C) both", " The answer is C.")]
    [InlineData("QCMLE-ALE", "Is a word?\nContext: N/A\nOptions: (A) no (B) yes (C) both", "The answer is C.")]
    [InlineData("CQM-LEPA", "Context: N/A\nQuestion: Is Question: a word?\nOptions: (A) no (B) yes (C) both", "###\nANSWER: C.")]
    public void Empty_fields_and_labels_go_as_in_the_script(string format, string question, string answer)
    {
        var sample = Read(format).Samples[0];
        Assert.Empty(sample.Images);
        Assert.Equal([new ConversationTurn("human", question), new ConversationTurn("gpt", answer)], sample.Turns);
    }

    [Fact]
    public void Named_formats_are_those_names()
    {
        Assert.Equal("QCM-LEA", ScienceQaFormat.LectureExplanationAnswer.Name);
        Assert.Equal("QCM-A", ScienceQaFormat.AnswerOnly.ToString());
        var e = Assert.Throws<ScienceQaFormatException>(() => ScienceQaFormat.Parse("QCM"));
        Assert.Equal("There is no ScienceQA format 'QCM'. A format is a question's form, a hyphen and an answer's form: one of CQM, QCM, QCML, QCME, QCMLE, QCLM, "
            + "QCEM, QCLEM; and one of A, AL, AE, ALE, AEL, LA, EA, LEA, ELA, LEPA. LLaVA trains with QCM-LEA.", e.Message);
        Assert.Equal("QCM", e.Name);
    }

    [Fact]
    public void Every_malformed_problem_is_named()
    {
        var e = Assert.Throws<DataFileException>(() => Read("QCM-A", "bad"));
        Assert.EndsWith("10 record(s) cannot be used. Correct or remove them:"
            + "\n  bad1 (record 0): it is an array, not an object"
            + "\n  bad2 (record 1): it has no choices"
            + "\n  bad3 (record 2): question is a number, not a text"
            + "\n  bad4 (record 3): choices is a text, not an array"
            + "\n  bad5 (record 4): answer is 1, but there are 1 choices, counted from 0"
            + "\n  bad6 (record 5): answer is a text, not a whole number"
            + "\n  bad7 (record 6): it has 0 choices (letters go from A to E; remove the problem from the split)"
            + "\n  bad8 (record 7): it has no answer"
            + "\n  bad9 (record 8): it has 6 choices (letters go from A to E; remove the problem from the split)"
            + "\n  none (record 9): pid_splits.json names it, but problems.json does not have it (take both files of one download)", e.Message);
        Assert.Equal(Path.Combine(_data.Folder, "problems.json"), e.Path);
        e = Assert.Throws<DataFileException>(() => Read("QCM-A", "bad2"));
        Assert.Contains("bad10 (record 0): a choice is a number, not a text\n  bad11 (record 1): image is an empty file name (write null where there is none)\n  bad12 (record 2): it has no question", e.Message);
    }

    [Fact]
    public void Files_that_are_not_ScienceQAs_are_refused()
    {
        Assert.Contains("has no split 'dev'. There are train, bad, bad2, odd.", Refused("dev"));
        Assert.Contains("its split 'odd' is not a list of ids. pid_splits.json is ScienceQA's object of lists of ids", Refused("odd"));
        _data.File("problems.json", "[]");
        Assert.Contains("problems.json: holds no JSON object. problems.json is ScienceQA's object of problems by id.", Refused("train"));
        _data.File("pid_splits.json", "{");
        Assert.Contains("pid_splits.json: is no JSON (", Refused("train"));
        File.Delete(Path.Combine(_data.Folder, "pid_splits.json"));
        Assert.Contains("pid_splits.json: cannot be read (", Refused("train"));
    }

    private string Refused(string split) => Assert.Throws<DataFileException>(() => Read("QCM-A", split)).Message;

    private LlavaDataset Read(string format, string split = "train")
        => LlavaDataset.FromScienceQa(_data.Folder, split, ScienceQaFormat.Parse(format), _data.Images, TinyData.Processor);
}
