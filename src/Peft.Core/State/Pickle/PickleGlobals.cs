using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>What a name in a pickle stands for. Names that are not here are refused.</summary>
internal abstract record PickleGlobal
{
    /// <summary><c>torch._utils._rebuild_tensor_v2</c> (dtype from the storage) or <c>_v3</c> (dtype given).</summary>
    public sealed record RebuildTensor(bool DtypeGiven) : PickleGlobal;

    /// <summary><c>torch._utils._rebuild_parameter</c>.</summary>
    public sealed record RebuildParameter : PickleGlobal;

    /// <summary><c>collections.OrderedDict</c>.</summary>
    public sealed record OrderedDict : PickleGlobal;

    /// <summary>A storage class; no dtype for untyped ones.</summary>
    public sealed record Storage(string? DtypeName) : PickleGlobal;

    /// <summary>A dtype such as <c>torch.float8_e4m3fn</c>.</summary>
    public sealed record Dtype(string DtypeName) : PickleGlobal;

    /// <summary>What a Python name stands for, or null.</summary>
    public static PickleGlobal? Find(string module, string name) => Known.GetValueOrDefault($"{module}.{name}");

    /// <summary>The storage class that torch uses for a dtype.</summary>
    public static string StorageName(ScalarType dtype) => Storages.First(row => row.Type == dtype).Name;

    private static readonly (string Name, ScalarType Type, string DtypeName)[] Storages =
    [
        ("DoubleStorage", ScalarType.Float64, "F64"),
        ("FloatStorage", ScalarType.Float32, "F32"),
        ("HalfStorage", ScalarType.Float16, "F16"),
        ("BFloat16Storage", ScalarType.BFloat16, "BF16"),
        ("LongStorage", ScalarType.Int64, "I64"),
        ("IntStorage", ScalarType.Int32, "I32"),
        ("ShortStorage", ScalarType.Int16, "I16"),
        ("CharStorage", ScalarType.Int8, "I8"),
        ("ByteStorage", ScalarType.Byte, "U8"),
        ("BoolStorage", ScalarType.Bool, "BOOL"),
        ("ComplexFloatStorage", ScalarType.ComplexFloat32, "C64"),
    ];

    // After the table it is made from: static fields are set in the order they stand.
    private static readonly Dictionary<string, PickleGlobal> Known = Make();

    private static Dictionary<string, PickleGlobal> Make()
    {
        var known = new Dictionary<string, PickleGlobal>
        {
            ["torch._utils._rebuild_tensor_v2"] = new RebuildTensor(false),
            ["torch._utils._rebuild_tensor_v3"] = new RebuildTensor(true),
            ["torch._utils._rebuild_parameter"] = new RebuildParameter(),
            ["collections.OrderedDict"] = new OrderedDict(),
            ["torch.storage.UntypedStorage"] = new Storage(null),
        };
        foreach (var (name, _, dtypeName) in Storages) known["torch." + name] = new Storage(dtypeName);
        foreach (var (name, dtypeName) in new[]
        {
            ("float64", "F64"), ("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16"), ("int64", "I64"), ("int32", "I32"), ("int16", "I16"),
            ("int8", "I8"), ("uint8", "U8"), ("bool", "BOOL"), ("complex64", "C64"), ("uint16", "U16"), ("uint32", "U32"), ("uint64", "U64"),
            ("float8_e4m3fn", "F8_E4M3"), ("float8_e5m2", "F8_E5M2"), ("float8_e8m0fnu", "F8_E8M0"),
            ("float8_e4m3fnuz", "F8_E4M3FNUZ"), ("float8_e5m2fnuz", "F8_E5M2FNUZ"),
        })
            known["torch." + name] = new Dtype(dtypeName);
        return known;
    }
}
