using System.Text;

namespace Peft.Llava;

/// <summary>Text to ids and spans, for one text; made anew for each, so that a tokenizer may be shared by threads.</summary>
internal sealed class TokenEncoder(BpeModel model, TokenizerBehavior behavior, bool addsPrefixSpace, NormalizedTokenMatcher? normalized = null)
{
    private readonly BpeMerger _merger = new(model.Merges);
    private readonly List<int> _ids = [];
    private readonly List<TextSpan> _spans = [];
    private readonly List<int> _charOfByte = [];
    private readonly int _spaceSymbol = model.SymbolOf(BpeModel.SpaceMark);
    private string _text = "";
    private int _offset;

    public List<int> Ids => _ids;

    public List<TextSpan> Spans => _spans;

    /// <summary>A token outside the text's pieces (BOS, an image), with its span.</summary>
    public void Emit(int id, TextSpan span)
    {
        _ids.Add(id);
        _spans.Add(span);
    }

    /// <summary>Encodes a text of its own: split at added tokens, a dummy space where the behaviour puts one.</summary>
    /// <param name="text">The text.</param>
    /// <param name="offset">What to add to the spans: the text's place in a larger one.</param>
    /// <param name="added">The added tokens.</param>
    public void Encode(string text, int offset, AddedTokenMatcher added)
    {
        _text = text;
        _offset = offset;
        int from = 0;
        for (bool first = true; from < text.Length; first = false)
        {
            var token = added.Next(text, from, out int at);
            int left = at;
            if (token is { StripLeft: true }) while (left > from && PythonText.IsSpace(text[left - 1])) left--;
            EncodePiece(from, left, first, token);
            if (token is null) return;
            from = at + token.Content.Length;
            EmitLocal(token.Id, at, from);
            if (token.StripRight) while (from < text.Length && PythonText.IsSpace(text[from])) from++;
        }
    }

    private void EncodePiece(int start, int end, bool first, AddedToken? beforeToken)
    {
        if (model.IsByteLevel)
        {
            for (int at = start; at < end;)
            {
                int stop = ByteLevelText.WordEnd(_text.AsSpan(0, end), at);
                EncodeBytes(at, stop);
                at = stop;
            }
            return;
        }
        bool dummy = DummySpaceBefore(start, end, first, beforeToken);
        if (normalized is not null) start = EncodeToLastNormalized(start, end, ref dummy);
        EncodeRun(start, end, dummy);
    }

    /// <summary>Encodes a piece up to and with the last of its tokens that are found in the normalized text; what comes after has no dummy space of its own.</summary>
    private int EncodeToLastNormalized(int start, int end, ref bool dummy)
    {
        while (normalized!.Next(_text, start, end, dummy, out int at, out bool takesDummy) is { } token)
        {
            int left = at, stop = at + token.Content.Length + (takesDummy ? 0 : 1);
            // Spaces are marks by now, and so no blanks that a token could take.
            if (token.StripLeft) while (left > start && IsOtherBlank(left - 1)) left--;
            EncodeRun(start, left, dummy && !takesDummy);
            EmitLocal(token.Id, left, stop);
            if (token.StripRight) while (stop < end && IsOtherBlank(stop)) stop++;
            (start, dummy) = (stop, false);
        }
        return start;
    }

    private bool IsOtherBlank(int position) => _text[position] != ' ' && PythonText.IsSpace(_text[position]);

    private void EncodeRun(int start, int end, bool dummy)
    {
        if (start == end && !dummy) return;
        if (dummy) _merger.Add(_spaceSymbol, start);
        int position = start;
        bool inWord = false;
        while (position < end)
        {
            if (model.WholePieces?.At(_text, position) is { } whole && position + whole.Content.Length <= end)
            {
                _merger.Drain(position, Receive);
                EmitLocal(whole.Id, position, position + whole.Content.Length);
                position += whole.Content.Length;
                continue;
            }
            var rune = RuneAt(position);
            bool space = rune.Value is ' ' or BpeModel.SpaceMark;
            if (space && inWord && model.JoinsWordByWord) _merger.Drain(position, Receive);
            inWord = !space;
            _merger.Add(space ? _spaceSymbol : model.SymbolOf(rune.Value), position);
            position += rune.Utf16SequenceLength;
        }
        _merger.Drain(end, Receive);
    }

    /// <summary>The rules in which the behaviours differ.</summary>
    private bool DummySpaceBefore(int start, int end, bool first, AddedToken? beforeToken)
    {
        if (!addsPrefixSpace) return false;
        bool empty = start == end;
        switch (behavior)
        {
            case TokenizerBehavior.SentencePiece:
                // The space is put before the whole text; alone before a special token it is dropped again.
                return first && !(empty && beforeToken is { IsSpecial: true });
            case TokenizerBehavior.SentencePieceLegacy:
            case TokenizerBehavior.Fast:
                return !empty;
            default:
                bool wanted = first || behavior == TokenizerBehavior.Transformers5Legacy;
                return wanted && !empty && _text[start] is not (' ' or BpeModel.SpaceMark);
        }
    }

    private void Receive(int symbol, int start, int end)
    {
        if (symbol >= 0 && symbol < model.Pieces.Count)
        {
            EmitLocal(symbol, start, end);
            return;
        }
        // A character that is no piece: its bytes, each with the character's span.
        Span<byte> utf8 = stackalloc byte[4];
        int count = RuneAt(start).EncodeToUtf8(utf8);
        for (int i = 0; i < count; i++) EmitLocal(model.ByteIds[utf8[i]], start, end);
    }

    private void EncodeBytes(int start, int end)
    {
        Span<byte> utf8 = stackalloc byte[4];
        _charOfByte.Clear();
        for (int position = start; position < end;)
        {
            var rune = RuneAt(position);
            int count = rune.EncodeToUtf8(utf8);
            for (int i = 0; i < count; i++)
            {
                _merger.Add(model.SymbolOf(ByteLevelText.CharOf(utf8[i])), _charOfByte.Count);
                _charOfByte.Add(position);
            }
            position += rune.Utf16SequenceLength;
        }
        _merger.Drain(_charOfByte.Count, ReceiveBytes);
    }

    private void ReceiveBytes(int symbol, int firstByte, int endByte)
    {
        // A token that begins or ends inside a character reaches to that character's ends.
        int last = _charOfByte[endByte - 1];
        EmitLocal(symbol, _charOfByte[firstByte], last + RuneAt(last).Utf16SequenceLength);
    }

    private void EmitLocal(int id, int start, int end) => Emit(id, new TextSpan(start + _offset, end + _offset));

    private Rune RuneAt(int position)
        => Rune.TryGetRuneAt(_text, position, out var rune) ? rune : throw new InvalidTextException(_text, position);
}
