using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace Peft.Core;

/// <summary>
/// Reads one pickle by a stack machine that knows plain values, containers, and the few names of <see cref="PickleGlobal"/>; it has no way
/// to call anything else. Source: the opcodes of Python's <c>pickletools</c>, protocols 2 to 5.
/// </summary>
internal ref struct Unpickler
{
    private static readonly UTF8Encoding StrictUtf8 = new(false, throwOnInvalidBytes: true);
    private readonly PickleFile _file;
    private readonly ReadOnlySpan<byte> _bytes;
    private readonly Dictionary<long, object?> _memo = [];
    private readonly List<int> _marks = [];
    private readonly List<object?> _stack = [];
    private int _at;

    public Unpickler(PickleFile file, ReadOnlySpan<byte> bytes)
    {
        _file = file;
        _bytes = bytes;
    }

    /// <summary>The value that the pickle makes.</summary>
    public object? Run()
    {
        while (true)
        {
            byte op = Take(1)[0];
            if (op == '.')
            {
                object? result = Pop();
                if (_stack.Count > 0 || _marks.Count > 0) throw Damaged("its pickle ends with values left over");
                if (_at < _bytes.Length) throw Damaged("its pickle goes on after its end");
                return result;
            }
            if (!Plain(op) && !Container(op) && !Memory(op)) Special(op);
        }
    }

    private bool Plain(byte op)
    {
        switch (op)
        {
            case (byte)'N': Push(null); return true;
            case 0x88: Push(true); return true;
            case 0x89: Push(false); return true;
            case (byte)'K': Push((long)Take(1)[0]); return true;
            case (byte)'M': Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2))); return true;
            case (byte)'J': Push((long)BinaryPrimitives.ReadInt32LittleEndian(Take(4))); return true;
            case 0x8a: Push(Integer(Take(Take(1)[0]))); return true;
            case 0x8b: Push(Integer(Take(Length32()))); return true;
            case (byte)'G': Push(BinaryPrimitives.ReadDoubleBigEndian(Take(8))); return true;
            case (byte)'X': Push(Text(Take(Length32()))); return true;
            case 0x8c: Push(Text(Take(Take(1)[0]))); return true;
            case 0x8d: Push(Text(Take(Length64()))); return true;
            case (byte)'C': Push(Take(Take(1)[0]).ToArray()); return true;
            case (byte)'B': Push(Take(Length32()).ToArray()); return true;
            case 0x8e: Push(Take(Length64()).ToArray()); return true;
            default: return false;
        }
    }

    private bool Container(byte op)
    {
        switch (op)
        {
            case (byte)'(': _marks.Add(_stack.Count); return true;
            case (byte)'}': Push(new PickleDictionary()); return true;
            case (byte)']': Push(new List<object?>()); return true;
            case (byte)')': Push(new PickleTuple([])); return true;
            case 0x85: Push(new PickleTuple(Pop(1))); return true;
            case 0x86: Push(new PickleTuple(Pop(2))); return true;
            case 0x87: Push(new PickleTuple(Pop(3))); return true;
            case (byte)'t': Push(new PickleTuple(PopMark())); return true;
            case (byte)'l': Push(new List<object?>(PopMark())); return true;
            case (byte)'d': Push(Filled(new PickleDictionary(), PopMark())); return true;
            case (byte)'a': Append(Pop(1)); return true;
            case (byte)'e': Append(PopMark()); return true;
            case (byte)'s': SetItems(Pop(2)); return true;
            case (byte)'u': SetItems(PopMark()); return true;
            default: return false;
        }
    }

    private bool Memory(byte op)
    {
        switch (op)
        {
            case (byte)'q': _memo[Take(1)[0]] = Top(); return true;
            case (byte)'r': _memo[Length32()] = Top(); return true;
            case 0x94: _memo[_memo.Count] = Top(); return true;
            case (byte)'h': Push(Remembered(Take(1)[0])); return true;
            case (byte)'j': Push(Remembered(Length32())); return true;
            case (byte)'0': Pop(); return true;
            case (byte)'1': PopMark(); return true;
            case (byte)'2': Push(Top()); return true;
            default: return false;
        }
    }

    private void Special(byte op)
    {
        switch (op)
        {
            case 0x80:
                byte protocol = Take(1)[0];
                if (protocol is < 2 or > 5) throw Damaged($"its pickle has protocol {protocol}; 2 to 5 are known");
                break;
            case 0x95: Take(8); break;                           // frames only help buffering
            case (byte)'c': Push(Find(Line(), Line())); break;
            case 0x93:
                object?[] names = Pop(2);
                if (names is not [string module, string name]) throw Damaged("its pickle names something by what is no text");
                Push(Find(module, name));
                break;
            case (byte)'Q': Push(_file.Storage(Pop())); break;
            case (byte)'R': Reduce(Pop(2)); break;
            case (byte)'b': Build(Pop()); break;
            default:
                throw new PickleRefusedException(_file.Path, OpcodeName(op));
        }
    }

    private readonly PickleGlobal Find(string module, string name)
        => PickleGlobal.Find(module, name) ?? throw new PickleRefusedException(_file.Path, $"{module}.{name}");

    private readonly void Reduce(object?[] call)
    {
        if (call[1] is not PickleTuple arguments) throw Damaged("its pickle calls something without a tuple of arguments");
        Push(call[0] switch
        {
            PickleGlobal.OrderedDict when arguments.Count == 0 => new PickleDictionary(isOrderedDict: true),
            PickleGlobal.OrderedDict when arguments is [List<object?> pairs] => FromPairs(pairs),
            PickleGlobal.RebuildTensor rebuild => _file.Rebuild(rebuild.DtypeGiven, arguments),
            PickleGlobal.RebuildParameter when arguments is [PickledTensor tensor, bool, PickleDictionary { Count: 0 }] => tensor,
            PickleGlobal known => throw new PickleRefusedException(_file.Path, $"a call of {known.GetType().Name} with {arguments.Count} unusual arguments"),
            _ => throw new PickleRefusedException(_file.Path, "a call of what is no function"),
        });
    }

    private readonly PickleDictionary FromPairs(List<object?> pairs)
    {
        var items = new List<object?>();
        foreach (object? pair in pairs)
        {
            if (pair is not IReadOnlyList<object?> { Count: 2 } two) throw Damaged("an OrderedDict of its pickle is made of what are no pairs");
            items.AddRange(two);
        }
        return Filled(new PickleDictionary(isOrderedDict: true), items);
    }

    // A state dict carries its module versions as an attribute. Other objects have no attributes that a file could set.
    private readonly void Build(object? state)
    {
        if (Top() is not PickleDictionary { IsOrderedDict: true } target || state is not PickleDictionary attributes)
            throw new PickleRefusedException(_file.Path, "attributes on what is no OrderedDict");
        target.Attributes = attributes;
    }

    private readonly void Append(IReadOnlyList<object?> items)
    {
        if (Top() is not List<object?> list) throw new PickleRefusedException(_file.Path, "appending to what is no list");
        list.AddRange(items);
    }

    private readonly void SetItems(IReadOnlyList<object?> items)
    {
        if (Top() is not PickleDictionary dictionary) throw new PickleRefusedException(_file.Path, "setting items of what is no dict");
        Filled(dictionary, items);
    }

    private readonly PickleDictionary Filled(PickleDictionary dictionary, IReadOnlyList<object?> items)
    {
        if (items.Count % 2 != 0) throw Damaged("a dict of its pickle has a key without a value");
        for (int i = 0; i < items.Count; i += 2)
        {
            // Tuples of containers could be nested without end; none of PyTorch's files has them as keys.
            if (!IsScalar(items[i]) && !(items[i] is PickleTuple tuple && tuple.All(IsScalar)))
                throw Damaged($"a dict of its pickle has a key that is no text, number or tuple of these but {items[i]?.GetType().Name ?? "None"}");
            dictionary.Set(items[i]!, items[i + 1]);
        }
        return dictionary;
    }

    private static bool IsScalar(object? value) => value is string or long or double or bool or BigInteger;

    private readonly void Push(object? value) => _stack.Add(value);

    private readonly int Floor => _marks.Count > 0 ? _marks[^1] : 0;

    private readonly object? Top() => _stack.Count > Floor ? _stack[^1] : throw Damaged("its pickle takes from an empty stack");

    private readonly object? Pop() => Pop(1)[0];

    private readonly object?[] Pop(int count)
    {
        if (_stack.Count - Floor < count) throw Damaged("its pickle takes from an empty stack");
        object?[] values = [.. _stack[^count..]];
        _stack.RemoveRange(_stack.Count - count, count);
        return values;
    }

    private readonly object?[] PopMark()
    {
        if (_marks.Count == 0) throw Damaged("its pickle closes what it has not opened");
        object?[] values = Pop(_stack.Count - Floor);
        _marks.RemoveAt(_marks.Count - 1);
        return values;
    }

    private readonly object? Remembered(long index)
        => _memo.TryGetValue(index, out object? value) ? value : throw Damaged($"its pickle refers to value {index}, which it has not made");

    private ReadOnlySpan<byte> Take(int count)
    {
        if (count > _bytes.Length - _at) throw Damaged("its pickle is cut off");
        _at += count;
        return _bytes.Slice(_at - count, count);
    }

    private int Length32() => Length(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)));

    private int Length64() => Length(BinaryPrimitives.ReadUInt64LittleEndian(Take(8)));

    private readonly int Length(ulong value) => value <= int.MaxValue ? (int)value : throw Damaged("its pickle is cut off");

    private string Line()
    {
        int length = _bytes[_at..].IndexOf((byte)'\n');
        if (length < 0) throw Damaged("its pickle is cut off");
        return Text(Take(length + 1)[..length]);
    }

    private readonly string Text(ReadOnlySpan<byte> bytes)
    {
        try
        {
            return StrictUtf8.GetString(bytes);
        }
        catch (DecoderFallbackException)
        {
            throw Damaged("its pickle holds a text that is no UTF-8");
        }
    }

    private static object Integer(ReadOnlySpan<byte> bytes)
    {
        var value = new BigInteger(bytes);
        return value >= long.MinValue && value <= long.MaxValue ? (object)(long)value : value;
    }

    private static string OpcodeName(byte op) => op switch
    {
        0x81 or 0x92 or (byte)'o' or (byte)'i' => "making an object of a class (opcode " + Shown(op) + ")",
        0x82 or 0x83 or 0x84 => "an extension of the copyreg module (opcode " + Shown(op) + ")",
        _ => "the pickle operation " + Shown(op),
    };

    private static string Shown(byte op) => op is > 0x20 and < 0x7f ? $"'{(char)op}'" : $"0x{op:x2}";

    private readonly PickleFormatException Damaged(string fault) => new(_file.Path, fault);
}
