using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Peft.Quantization;

/// <summary>Four lanes: AdvSimd on ARM, SSE4.1 on x86.</summary>
internal unsafe struct Lanes128 : ILanes<Vector128<float>, Vector128<int>>
{
    public static int Count => 4;
    public static Vector128<float> Broadcast(float value) => Vector128.Create(value);
    public static Vector128<int> Broadcast(int value) => Vector128.Create(value);
    public static Vector128<float> Load(float* source) => Vector128.Load(source);
    public static void Store(float* target, Vector128<float> value) => value.Store(target);
    public static Vector128<int> Load(int* source) => Vector128.Load(source);

    public static Vector128<int> LoadUInt16(ushort* source)
        => Vector128.WidenLower(Vector128.CreateScalar(Unsafe.ReadUnaligned<ulong>(source)).AsUInt16()).AsInt32();

    public static Vector128<int> LoadByte(byte* source)
        => Vector128.WidenLower(Vector128.WidenLower(Vector128.CreateScalar(Unsafe.ReadUnaligned<uint>(source)).AsByte())).AsInt32();

    public static Vector128<int> LoadSByte(sbyte* source)
        => Vector128.WidenLower(Vector128.WidenLower(Vector128.CreateScalar(Unsafe.ReadUnaligned<uint>(source)).AsSByte()));

    public static void StoreUInt16(ushort* target, Vector128<int> value)
        => Unsafe.WriteUnaligned(target, Vector128.Narrow(value.AsUInt32(), value.AsUInt32()).AsUInt64().ToScalar());

    public static void StoreByte(byte* target, Vector128<int> value)
    {
        var words = Vector128.Narrow(value.AsUInt32(), value.AsUInt32());
        Unsafe.WriteUnaligned(target, Vector128.Narrow(words, words).AsUInt32().ToScalar());
    }

    public static Vector128<float> Add(Vector128<float> a, Vector128<float> b) => a + b;
    public static Vector128<float> Subtract(Vector128<float> a, Vector128<float> b) => a - b;
    public static Vector128<float> Multiply(Vector128<float> a, Vector128<float> b) => a * b;
    public static Vector128<float> Divide(Vector128<float> a, Vector128<float> b) => a / b;
    public static Vector128<float> SquareRoot(Vector128<float> a) => Vector128.Sqrt(a);
    public static Vector128<float> MultiplyAdd(Vector128<float> a, Vector128<float> b, Vector128<float> c) => a * b + c;
    public static Vector128<int> Add(Vector128<int> a, Vector128<int> b) => a + b;
    public static Vector128<int> Subtract(Vector128<int> a, Vector128<int> b) => a - b;
    public static Vector128<int> And(Vector128<int> a, Vector128<int> b) => a & b;
    public static Vector128<int> Or(Vector128<int> a, Vector128<int> b) => a | b;
    public static Vector128<int> ShiftLeft(Vector128<int> a, int count) => a << count;
    public static Vector128<int> ShiftRight(Vector128<int> a, int count) => a >>> count;
    public static Vector128<int> Max(Vector128<int> a, Vector128<int> b) => Vector128.Max(a, b);
    public static Vector128<int> Min(Vector128<int> a, Vector128<int> b) => Vector128.Min(a, b);
    public static Vector128<int> GreaterThan(Vector128<int> a, Vector128<int> b) => Vector128.GreaterThan(a, b);
    public static Vector128<int> GreaterThan(Vector128<float> a, Vector128<float> b) => Vector128.GreaterThan(a, b).AsInt32();
    public static Vector128<int> LessThanOrEqual(Vector128<float> a, Vector128<float> b) => Vector128.LessThanOrEqual(a, b).AsInt32();
    public static Vector128<int> Select(Vector128<int> mask, Vector128<int> a, Vector128<int> b) => Vector128.ConditionalSelect(mask, a, b);

    public static Vector128<int> RoundToInt(Vector128<float> a)
    {
        if (Sse2.IsSupported) return Sse2.ConvertToVector128Int32(a);
        if (AdvSimd.IsSupported) return AdvSimd.ConvertToInt32RoundToEven(a);
        return Vector128.ConvertToInt32(Vector128.Round(a));
    }

    public static Vector128<float> ToFloat(Vector128<int> a) => Vector128.ConvertToSingle(a);
    public static Vector128<float> AsFloat(Vector128<int> a) => a.AsSingle();
    public static Vector128<int> AsInt(Vector128<float> a) => a.AsInt32();

    public static Vector128<float> Gather(float* table, Vector128<int> index)
        => Vector128.Create(table[index.GetElement(0)], table[index.GetElement(1)], table[index.GetElement(2)], table[index.GetElement(3)]);

    public static Vector128<int> Gather(int* table, Vector128<int> index)
        => Vector128.Create(table[index.GetElement(0)], table[index.GetElement(1)], table[index.GetElement(2)], table[index.GetElement(3)]);

    public static Vector128<int> Gather(byte* table, Vector128<int> index)
        => Vector128.Create((int)table[index.GetElement(0)], table[index.GetElement(1)], table[index.GetElement(2)], table[index.GetElement(3)]);

    public static int MaxLane(Vector128<int> a)
        => Math.Max(Math.Max(a.GetElement(0), a.GetElement(1)), Math.Max(a.GetElement(2), a.GetElement(3)));

    public static float Sum(Vector128<float> a) => Vector128.Sum(a);
}
