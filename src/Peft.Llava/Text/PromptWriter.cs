using System.Text;

namespace Peft.Llava;

/// <summary>Collects a prompt's text and the spans of the assistant's messages.</summary>
internal sealed class PromptWriter
{
    private readonly StringBuilder _text = new();
    private readonly List<TextSpan> _supervised = [];

    /// <summary>Text that belongs to nobody.</summary>
    public PromptWriter Append(string text)
    {
        _text.Append(text);
        return this;
    }

    /// <summary>A message with its joining space and end; supervised if it is the assistant's.</summary>
    public PromptWriter Message(Speaker speaker, string text)
    {
        int start = _text.Length;
        _text.Append(text);
        if (speaker == Speaker.Assistant) Supervise(start, _text.Length);
        return this;
    }

    /// <summary>Where the next text begins.</summary>
    public int Position => _text.Length;

    /// <summary>Marks a range as supervised.</summary>
    public void Supervise(int start, int end) => _supervised.Add(new TextSpan(start, end));

    /// <summary>Python's <c>lstrip(characters)</c>: leading characters of the set are dropped, whatever word they belong to.</summary>
    public void TrimStart(string characters)
    {
        int count = 0;
        while (count < _text.Length && characters.Contains(_text[count])) count++;
        _text.Remove(0, count);
        for (int i = 0; i < _supervised.Count; i++)
            _supervised[i] = new TextSpan(Math.Max(0, _supervised[i].Start - count), Math.Max(0, _supervised[i].End - count));
    }

    public RenderedPrompt Finish() => new(_text.ToString(), _supervised);
}
