using System.Buffers;
using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Writes a pickle as Python's own pickler does under <c>torch.save</c> (protocol 2), down to the order of its memo. Tensors go into a
/// list of storages. Source: CPython's <c>Modules/_pickle.c</c>, <c>torch.Tensor.__reduce_ex__</c>, <c>torch.serialization._save</c>.
/// </summary>
internal sealed class Pickler(string path)
{
    private const int Batch = 1000;
    private readonly ArrayBufferWriter<byte> _out = new();
    private readonly Dictionary<string, int> _texts = [];
    private readonly Dictionary<string, int> _storageKeys = [];
    private readonly Dictionary<object, int> _objects = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<string, int> _globals = [];
    private readonly Dictionary<(nint Address, long Count, ScalarType Dtype), string> _shared = [];
    private readonly List<Tensor> _storages = [];
    private int _memo;

    /// <summary>The tensors whose bytes are the storages 0, 1, …</summary>
    public IReadOnlyList<Tensor> Storages => _storages;

    /// <summary>The pickle of a value.</summary>
    public byte[] Pickle(object? value)
    {
        Op(0x80, 2);
        Save(value, "(root)");
        Op('.');
        return _out.WrittenSpan.ToArray();
    }

    private void Save(object? value, string where)
    {
        RuntimeHelpers.EnsureSufficientExecutionStack();
        switch (value)
        {
            case null: Op('N'); break;
            case bool flag: Op(flag ? 0x88 : 0x89); break;
            case int number: SaveInteger(number); break;
            case long number: SaveInteger(number); break;
            case BigInteger number: SaveBig(number); break;
            case float number: SaveDouble(number); break;
            case double number: SaveDouble(number); break;
            case string text: SaveText(text, _texts); break;
            case Tensor tensor: SaveTensor(tensor, where); break;
            case PickleTuple tuple: SaveTuple(tuple, where); break;
            case PickleDictionary dictionary: SaveDictionary(dictionary); break;
            case IReadOnlyList<object?> list: SaveList(list, where); break;
            default:
                throw new TensorWriteException(path, where, $"is a {value.GetType().Name}, which is neither a tensor nor a plain value",
                    "Give null, bool, numbers, text, Tensor, List<object?>, PickleTuple or PickleDictionary.");
        }
    }

    private void SaveInteger(long value)
    {
        if (value is >= 0 and <= byte.MaxValue) Op('K', (byte)value);
        else if (value is >= 0 and <= ushort.MaxValue) Op('M', (byte)value, (byte)(value >> 8));
        else if (value is >= int.MinValue and <= int.MaxValue)
        {
            Op('J');
            Write32((uint)(int)value);
        }
        else SaveBig(value);
    }

    private void SaveBig(BigInteger value)
    {
        byte[] bytes = value.ToByteArray();
        if (bytes.Length > byte.MaxValue)
        {
            Op(0x8b);
            Write32((uint)bytes.Length);
        }
        else Op(0x8a, (byte)bytes.Length);
        _out.Write(bytes);
    }

    private void SaveDouble(double value)
    {
        Op('G');
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteDoubleBigEndian(bytes, value);
        _out.Write(bytes);
    }

    private void SaveText(string text, Dictionary<string, int> memo)
    {
        if (memo.TryGetValue(text, out int index))
        {
            Get(index);
            return;
        }
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        Op('X');
        Write32((uint)bytes.Length);
        _out.Write(bytes);
        memo[text] = Put();
    }

    private void SaveTuple(PickleTuple tuple, string where)
    {
        if (tuple.Count == 0)
        {
            Op(')');
            return;
        }
        if (Known(tuple)) return;
        EmitTuple(tuple.Count, () =>
        {
            foreach (object? item in tuple) Save(item, where);
        });
        _objects[tuple] = _memo - 1;
    }

    private void EmitTuple(int count, Action items)
    {
        if (count > 3) Op('(');
        items();
        Op(count switch { 1 => 0x85, 2 => 0x86, 3 => 0x87, _ => 't' });
        Put();
    }

    private void SaveList(IReadOnlyList<object?> list, string where)
    {
        if (Known(list)) return;
        Op(']');
        _objects[list] = Put();
        if (list.Count == 1)
        {
            Save(list[0], $"{where}[0]");
            Op('a');
            return;
        }
        for (int begin = 0; begin < list.Count; begin += Batch)
        {
            Op('(');
            for (int i = begin; i < Math.Min(begin + Batch, list.Count); i++) Save(list[i], $"{where}[{i}]");
            Op('e');
        }
    }

    private void SaveDictionary(PickleDictionary dictionary)
    {
        if (Known(dictionary)) return;
        if (dictionary.IsOrderedDict) EmitOrderedDict();
        else
        {
            Op('}');
            Put();
        }
        _objects[dictionary] = _memo - 1;
        SaveItems(dictionary);
        if (dictionary.Attributes is not { } attributes) return;
        Save(attributes, "(attributes)");
        Op('b');
    }

    private void SaveItems(PickleDictionary dictionary)
    {
        var items = dictionary.ToList();
        if (items.Count == 0) return;
        int begin = 0;
        while (true)
        {
            var batch = items.GetRange(begin, Math.Min(Batch, items.Count - begin));
            // Python's two loops differ: that for dict writes a batch of one between marks and an empty one after a full last one.
            bool single = batch.Count == 1 && (dictionary.IsOrderedDict || items.Count == 1);
            if (!single) Op('(');
            foreach (var (key, value) in batch)
            {
                Save(key, "(key)");
                Save(value, key.ToString()!);
            }
            Op(single ? 's' : 'u');
            begin += batch.Count;
            if (batch.Count < Batch || (dictionary.IsOrderedDict && begin == items.Count)) return;
        }
    }

    private void EmitOrderedDict()
    {
        SaveGlobal("collections", "OrderedDict");
        Op(')');
        Op('R');
        Put();
    }

    private void SaveTensor(Tensor tensor, string where)
    {
        if (Known(tensor)) return;
        string storage = TensorDtypes.NameOf(tensor.dtype) is null
            ? throw new TensorWriteException(path, where, $"is {tensor.dtype}, which cannot be written", "Convert it to another dtype.")
            : PickleGlobal.StorageName(tensor.dtype);
        SaveGlobal("torch._utils", "_rebuild_tensor_v2");
        Op('(');
        EmitTuple(5, () =>
        {
            SaveText("storage", _texts);
            SaveGlobal("torch", storage);
            string key = StorageKey(tensor);
            // Python keeps one object per one-letter text, wherever it comes from; longer keys are objects of their own.
            SaveText(key, key.Length == 1 ? _texts : _storageKeys);
            SaveText("cpu", _texts);
            SaveInteger(tensor.numel());
        });
        Op('Q');
        SaveInteger(0);
        SaveNumbers(tensor.shape);
        SaveNumbers(ContiguousStrides(tensor.shape));
        Op(0x89);
        EmitOrderedDict();
        Op('t');
        Put();
        Op('R');
        _objects[tensor] = Put();
    }

    private void SaveNumbers(long[] numbers)
    {
        if (numbers.Length == 0)
        {
            Op(')');
            return;
        }
        EmitTuple(numbers.Length, () =>
        {
            foreach (long number in numbers) SaveInteger(number);
        });
    }

    // Tied weights: the same memory is written once and stays tied in Python.
    private string StorageKey(Tensor tensor)
    {
        string fresh = _storages.Count.ToString();
        if (tensor.device_type == TorchSharp.DeviceType.CPU && tensor.numel() > 0 && tensor.is_contiguous())
        {
            var place = (Address(tensor), tensor.numel(), tensor.dtype);
            if (_shared.TryGetValue(place, out string? known)) return known;
            _shared[place] = fresh;
        }
        _storages.Add(tensor);
        return fresh;
    }

    private static unsafe nint Address(Tensor tensor)
    {
        using var scope = NewDisposeScope();
        fixed (byte* first = tensor.detach().view(-1).narrow(0, 0, 1).bytes) return (nint)first;
    }

    private static long[] ContiguousStrides(long[] shape)
    {
        long[] strides = new long[shape.Length];
        long step = 1;
        for (int i = shape.Length - 1; i >= 0; i--)
        {
            strides[i] = step;
            step *= Math.Max(1, shape[i]);
        }
        return strides;
    }

    private void SaveGlobal(string module, string name)
    {
        string full = $"{module}\n{name}\n";
        if (_globals.TryGetValue(full, out int index))
        {
            Get(index);
            return;
        }
        Op('c');
        _out.Write(Encoding.ASCII.GetBytes(full));
        _globals[full] = Put();
    }

    private bool Known(object value)
    {
        if (!_objects.TryGetValue(value, out int index)) return false;
        Get(index);
        return true;
    }

    private int Put()
    {
        if (_memo <= byte.MaxValue) Op('q', (byte)_memo);
        else
        {
            Op('r');
            Write32((uint)_memo);
        }
        return _memo++;
    }

    private void Get(int index)
    {
        if (index <= byte.MaxValue) Op('h', (byte)index);
        else
        {
            Op('j');
            Write32((uint)index);
        }
    }

    private void Op(int op, params ReadOnlySpan<byte> arguments)
    {
        _out.Write([(byte)op]);
        _out.Write(arguments);
    }

    private void Write32(uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        _out.Write(bytes);
    }
}
