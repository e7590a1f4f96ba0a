namespace Peft.Llava;

/// <summary>
/// What question and answer of a ScienceQA sample hold, by LLaVA's names such as <c>QCM-LEA</c>: in the question Q question, C context (the hint),
/// M choices; in the answer A the letter; L lecture and E explanation (the solution), in this order.
/// </summary>
/// <remarks>Source: LLaVA <c>scripts/convert_sqa_to_llava_base_prompt.py</c>.</remarks>
public sealed class ScienceQaFormat
{
    private const string Because = "BECAUSE:";
    private static readonly string[] Questions = ["CQM", "QCM", "QCML", "QCME", "QCMLE", "QCLM", "QCEM", "QCLEM"];
    private static readonly string[] Answers = ["A", "AL", "AE", "ALE", "AEL", "LA", "EA", "LEA", "ELA", "LEPA"];
    private readonly string _question;
    private readonly string _answer;

    private ScienceQaFormat(string question, string answer) => (_question, _answer) = (question, answer);

    /// <summary>Lecture and solution, then "The answer is C.": what LLaVA trains with.</summary>
    public static ScienceQaFormat LectureExplanationAnswer { get; } = new("QCM", "LEA");

    /// <summary>The letter alone: "The answer is C.".</summary>
    public static ScienceQaFormat AnswerOnly { get; } = new("QCM", "A");

    /// <summary>LLaVA's name, such as <c>QCM-LEA</c>.</summary>
    public string Name => $"{_question}-{_answer}";

    /// <summary>A format by LLaVA's name.</summary>
    /// <param name="name">Such as <c>QCM-LEA</c>.</param>
    /// <exception cref="ScienceQaFormatException">There is none of that name.</exception>
    public static ScienceQaFormat Parse(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        string[] parts = name.Split('-');
        if (parts.Length != 2 || !Questions.Contains(parts[0]) || !Answers.Contains(parts[1])) throw new ScienceQaFormatException(name, Questions, Answers);
        return new ScienceQaFormat(parts[0], parts[1]);
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>The user's text, without a placeholder.</summary>
    internal string QuestionOf(ScienceQaProblem problem)
    {
        var lines = new List<string>();
        for (int i = 0; i < _question.Length; i++)
        {
            string reasons = string.Concat(_question.Skip(i).TakeWhile(c => c is 'L' or 'E'));
            lines.Add(_question[i] switch
            {
                'Q' => $"Question: {problem.Question}",
                'C' => $"Context: {ContextOf(problem)}",
                'M' => $"Options: {string.Join(' ', problem.Choices.Select((c, n) => $"({ScienceQaProblem.Letter(n)}) {c}"))}",
                _ => $"{Because} {string.Join(' ', reasons.Select(c => Reason(c, problem)))}",
            });
            if (reasons.Length > 1) i += reasons.Length - 1;
        }
        return WithoutLabel(Tidy(string.Join('\n', lines)), "Question: ");
    }

    /// <summary>The model's text.</summary>
    internal string AnswerOf(ScienceQaProblem problem) => WithoutLabel(Tidy(_answer == "LEPA" ? Sections(problem) : Sentence(problem)), "Answer: ");

    private string Sentence(ScienceQaProblem problem)
    {
        string verdict = $"The answer is {ScienceQaProblem.Letter(problem.Answer)}.";
        if (_answer == "A") return $"Answer: {verdict}";
        bool verdictFirst = _answer[0] == 'A';
        string letters = _answer.Replace("A", "", StringComparison.Ordinal);
        // LLaVA has these two the other way round, and data made by its script with them.
        if (verdictFirst && letters.Length == 1) letters = letters == "L" ? "E" : "L";
        string reasons = string.Join(' ', letters.Select(c => Reason(c, problem)));
        return verdictFirst ? $"Answer: {verdict} {Because} {reasons}" : $"Answer: {reasons} {verdict}";
    }

    private static string Sections(ScienceQaProblem problem)
    {
        string lecture = PythonText.Strip(problem.Lecture).Length > 0 ? $"LECTURE: {problem.Lecture}\n" : "";
        string solution = PythonText.Strip(problem.Solution).Length > 0 ? $"SOLUTION: {problem.Solution}\n" : "";
        return $"{lecture}{solution}###\nANSWER: {ScienceQaProblem.Letter(problem.Answer)}.";
    }

    private static string Reason(char letter, ScienceQaProblem problem) => letter == 'L' ? problem.Lecture : problem.Solution;

    private static string ContextOf(ScienceQaProblem problem) => PythonText.Strip(problem.Hint) is { Length: > 0 } hint ? hint : "N/A";

    private static string Tidy(string text)
    {
        text = PythonText.Strip(text.Replace("  ", " ", StringComparison.Ordinal));
        return text.EndsWith(Because, StringComparison.Ordinal) ? PythonText.Strip(text.Replace(Because, "", StringComparison.Ordinal)) : text;
    }

    /// <summary>LLaVA takes the label out everywhere if the text begins with it.</summary>
    private static string WithoutLabel(string text, string label)
        => text.StartsWith(label, StringComparison.Ordinal) ? text.Replace(label, "", StringComparison.Ordinal) : text;
}
