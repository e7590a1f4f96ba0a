using System.Globalization;

namespace Peft.Llava;

/// <summary>Reads <c>image_grid_pinpoints</c> in its text form.</summary>
public static class GridPinpoints
{
    /// <summary>
    /// Reads the canvases from text such as <c>[(336, 672), (672, 336)]</c>: a Python list or tuple of pairs, width first.
    /// </summary>
    /// <param name="text">The text of the checkpoint's config.</param>
    /// <returns>The canvases, in the text's order.</returns>
    /// <exception cref="GridPinpointsException">The text is something else, for example a range like <c>(1x1),...,(6x6)</c>.</exception>
    public static IReadOnlyList<ImageSize> Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var reader = new LiteralReader(text);
        object value = reader.ReadAll();
        if (value is not List<object> items) throw new GridPinpointsException(text, "it is one number");
        var sizes = new List<ImageSize>(items.Count);
        foreach (object item in items)
        {
            if (item is not List<object> { Count: 2 } pair || pair[0] is not int width || pair[1] is not int height)
                throw new GridPinpointsException(text, $"entry {sizes.Count} is no pair of whole numbers");
            if (width < 1 || height < 1) throw new GridPinpointsException(text, $"entry {sizes.Count} is {width}x{height}");
            sizes.Add(new ImageSize(width, height));
        }
        if (sizes.Count == 0) throw new GridPinpointsException(text, "it names no resolution");
        return sizes;
    }

    /// <summary>Python's list, tuple and integer literals; nothing else.</summary>
    private sealed class LiteralReader(string text)
    {
        private const int MaxDepth = 8;
        private int _at;

        public object ReadAll()
        {
            object value = ReadItems('\0', 0);
            return value;
        }

        private object ReadItems(char close, int depth)
        {
            if (depth > MaxDepth) throw Fault("nests too deep");
            var items = new List<object>();
            bool comma = false;
            while (true)
            {
                SkipSpace();
                if (AtClose(close))
                {
                    bool grouping = close != ']' && items.Count == 1 && !comma;      // (x) is x, (x,) is a tuple
                    if (items.Count == 0 && close == '\0') throw Fault("is empty");
                    return grouping ? items[0] : items;
                }
                if (items.Count > 0 && !comma) throw Fault("has something else than a comma between two entries");
                items.Add(ReadValue(depth));
                SkipSpace();
                comma = _at < text.Length && text[_at] == ',';
                if (comma) _at++;
            }
        }

        private object ReadValue(int depth)
        {
            char c = text[_at];
            if (c is '[' or '(')
            {
                _at++;
                return ReadItems(c == '[' ? ']' : ')', depth + 1);
            }
            int start = _at;
            while (_at < text.Length && (char.IsAsciiLetterOrDigit(text[_at]) || text[_at] is '-' or '+' or '_' or '.')) _at++;
            string word = text[start.._at];
            if (word.Length == 0 || !int.TryParse(word, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int number))
                throw Fault($"has '{(word.Length == 0 ? c : word)}' where a number was expected");
            return number;
        }

        private bool AtClose(char close)
        {
            if (_at >= text.Length) return close == '\0' ? true : throw Fault($"ends before its '{close}'");
            if (text[_at] is not (']' or ')')) return false;
            if (text[_at] != close) throw Fault($"has a '{text[_at]}' that closes nothing");
            _at++;
            return true;
        }

        private void SkipSpace()
        {
            while (_at < text.Length && char.IsWhiteSpace(text[_at])) _at++;
        }

        private GridPinpointsException Fault(string what) => new(text, $"it {what} (at character {_at})");
    }
}
