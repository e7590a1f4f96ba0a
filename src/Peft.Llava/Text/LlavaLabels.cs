namespace Peft.Llava;

/// <summary>
/// LLaVA's own labels, counted from pieces that are tokenised again one by one. Kept apart because its slips are part of it: runs that must
/// equal LLaVA's need the same dropped samples and the same shifted masks.
/// </summary>
internal sealed class LlavaLabels(LlamaTokenizer tokenizer, ConversationTemplate template, bool hasImage)
{
    private const int Ignored = LabelBuilder.Ignored;

    /// <summary>LLaVA pads with the unknown token where no padding token is set.</summary>
    private int? Padding => tokenizer.PadId ?? tokenizer.UnknownId;

    public LabeledText Label(RenderedPrompt prompt, IReadOnlyList<ConversationTurn> turns, IReadOnlyList<int> ids)
    {
        int[] labels = [.. ids];
        LabelMismatch? mismatch = null;
        switch (template.TrainingFormat)
        {
            case TrainingFormat.Plain: Mask(labels, 0, tokenizer.TokenizeWithImages(LlamaTokenizer.ImagePlaceholder).Count); break;
            case TrainingFormat.V0: LabelV0(labels, turns); break;
            case TrainingFormat.Mpt: mismatch = LabelRounds(labels, ids, MptRounds(prompt.Text), template.Separator + template.AssistantRole); break;
            case TrainingFormat.V1:
                mismatch = LabelRounds(labels, ids, prompt.Text.Split(template.Separator2), $"{template.Separator}{template.AssistantRole}: ");
                break;
            default: mismatch = LabelRounds(labels, ids, prompt.Text.Split(template.Separator2), "[/INST] "); break;
        }
        return new LabeledText(prompt, ids, labels, mismatch);
    }

    /// <summary>Every sentence counted for itself, with a BOS that the joined text does not have.</summary>
    private void LabelV0(int[] labels, IReadOnlyList<ConversationTurn> turns)
    {
        int[] lengths = [.. TrainingPrompt.V0Parts(template, turns).Select(part => hasImage ? CountIds(part) : CountUnpadded(part))];
        int current = lengths[0];
        Mask(labels, 0, current);
        for (int i = 0; i < turns.Count; i++)
        {
            if (turns[i].From == "human") Mask(labels, current + 2, current + lengths[i + 1]);
            current += lengths[i + 1];
        }
    }

    /// <summary>The rule that v1, llama_2 and mpt share: a count per round, and all or nothing if the counts do not add up.</summary>
    private LabelMismatch? LabelRounds(int[] labels, IReadOnlyList<int> ids, IReadOnlyList<string> rounds, string answerMark)
    {
        bool mpt = template.TrainingFormat == TrainingFormat.Mpt;
        int current = mpt ? 0 : 1;
        Mask(labels, 0, current);
        for (int i = 0; i < rounds.Count && rounds[i].Length > 0; i++)
        {
            string[] parts = rounds[i].Split(answerMark);
            if (parts.Length != 2) break;
            int round = CountIds(rounds[i]);
            int instruction = CountIds(parts[0] + answerMark) - (mpt ? 1 : 2);
            int correction = i == 0 ? 0 : LaterRoundCorrection();
            Mask(labels, current, current + instruction + correction);
            current += round + correction;
        }
        Mask(labels, current, labels.Length);
        if (current >= (tokenizer.ModelMaxLength ?? int.MaxValue)) return null;
        int total = ids.Count(id => id != Padding);
        if (current == total) return null;
        Mask(labels, 0, labels.Length);
        return new LabelMismatch(current, total);
    }

    /// <summary>What LLaVA adds to the counts of every round but the first, for tokenizers 0.14 and later.</summary>
    private int LaterRoundCorrection()
    {
        bool? legacy = tokenizer.IsByteLevel ? null : tokenizer.Behavior switch
        {
            TokenizerBehavior.SentencePiece or TokenizerBehavior.Transformers5 => false,
            TokenizerBehavior.SentencePieceLegacy or TokenizerBehavior.Transformers5Legacy => true,
            _ => null,
        };
        return template.TrainingFormat switch
        {
            TrainingFormat.Mpt => legacy == true ? 1 : 0,
            TrainingFormat.V1 when legacy is null => throw new ConversationException(template.Name,
                "LLaVA's labels of several rounds need a tokenizer that is legacy or not, which this one does not say",
                "Load tokenizer.model, or label by spans (LabelMode.Spans)."),
            TrainingFormat.V1 => legacy == false ? -1 : 0,
            _ => 0,
        };
    }

    /// <summary>System, question and answer, then question and answer each; none has the end token of its answer.</summary>
    private List<string> MptRounds(string prompt)
    {
        string[] pieces = prompt.Split(template.Separator);
        var rounds = new List<string> { string.Join(template.Separator, pieces.Take(3)) };
        for (int i = 3; i < pieces.Length; i += 2) rounds.Add(string.Join(template.Separator, pieces.Skip(i).Take(2)));
        return rounds;
    }

    private int CountIds(string text) => (hasImage ? tokenizer.TokenizeWithImages(text) : tokenizer.Tokenize(text)).Count;

    private int CountUnpadded(string text)
        => tokenizer.Tokenize(text).Ids.Take(tokenizer.ModelMaxLength ?? int.MaxValue).Count(id => id != Padding);

    /// <summary>Python's <c>labels[start:end] = -100</c>: negative ends count from the back, what is too large stops at the end.</summary>
    private static void Mask(int[] labels, int start, int end)
    {
        int from = Math.Clamp(start < 0 ? start + labels.Length : start, 0, labels.Length);
        int to = Math.Clamp(end < 0 ? end + labels.Length : end, 0, labels.Length);
        if (to > from) labels.AsSpan(from, to - from).Fill(Ignored);
    }
}
