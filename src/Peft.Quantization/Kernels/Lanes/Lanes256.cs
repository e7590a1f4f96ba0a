using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Quantization;

/// <summary>Eight lanes: AVX2 with FMA.</summary>
internal unsafe struct Lanes256 : ILanes<Vector256<float>, Vector256<int>>
{
    public static int Count => 8;
    public static Vector256<float> Broadcast(float value) => Vector256.Create(value);
    public static Vector256<int> Broadcast(int value) => Vector256.Create(value);
    public static Vector256<float> Load(float* source) => Vector256.Load(source);
    public static void Store(float* target, Vector256<float> value) => value.Store(target);
    public static Vector256<int> Load(int* source) => Vector256.Load(source);
    public static Vector256<int> LoadUInt16(ushort* source) => Avx2.ConvertToVector256Int32(source);
    public static Vector256<int> LoadByte(byte* source) => Avx2.ConvertToVector256Int32(source);
    public static Vector256<int> LoadSByte(sbyte* source) => Avx2.ConvertToVector256Int32(source);

    public static void StoreUInt16(ushort* target, Vector256<int> value)
        => Vector128.Narrow(value.GetLower().AsUInt32(), value.GetUpper().AsUInt32()).Store(target);

    public static void StoreByte(byte* target, Vector256<int> value)
    {
        var words = Vector128.Narrow(value.GetLower().AsUInt32(), value.GetUpper().AsUInt32());
        Unsafe.WriteUnaligned(target, Vector128.Narrow(words, words).AsUInt64().ToScalar());
    }

    public static Vector256<float> Add(Vector256<float> a, Vector256<float> b) => a + b;
    public static Vector256<float> Subtract(Vector256<float> a, Vector256<float> b) => a - b;
    public static Vector256<float> Multiply(Vector256<float> a, Vector256<float> b) => a * b;
    public static Vector256<float> Divide(Vector256<float> a, Vector256<float> b) => a / b;
    public static Vector256<float> SquareRoot(Vector256<float> a) => Vector256.Sqrt(a);
    public static Vector256<float> MultiplyAdd(Vector256<float> a, Vector256<float> b, Vector256<float> c) => Fma.MultiplyAdd(a, b, c);
    public static Vector256<int> Add(Vector256<int> a, Vector256<int> b) => a + b;
    public static Vector256<int> Subtract(Vector256<int> a, Vector256<int> b) => a - b;
    public static Vector256<int> And(Vector256<int> a, Vector256<int> b) => a & b;
    public static Vector256<int> Or(Vector256<int> a, Vector256<int> b) => a | b;
    public static Vector256<int> ShiftLeft(Vector256<int> a, int count) => a << count;
    public static Vector256<int> ShiftRight(Vector256<int> a, int count) => a >>> count;
    public static Vector256<int> Max(Vector256<int> a, Vector256<int> b) => Vector256.Max(a, b);
    public static Vector256<int> Min(Vector256<int> a, Vector256<int> b) => Vector256.Min(a, b);
    public static Vector256<int> GreaterThan(Vector256<int> a, Vector256<int> b) => Vector256.GreaterThan(a, b);
    public static Vector256<int> GreaterThan(Vector256<float> a, Vector256<float> b) => Vector256.GreaterThan(a, b).AsInt32();
    public static Vector256<int> LessThanOrEqual(Vector256<float> a, Vector256<float> b) => Vector256.LessThanOrEqual(a, b).AsInt32();
    public static Vector256<int> Select(Vector256<int> mask, Vector256<int> a, Vector256<int> b) => Vector256.ConditionalSelect(mask, a, b);
    public static Vector256<int> RoundToInt(Vector256<float> a) => Avx.ConvertToVector256Int32(a);
    public static Vector256<float> ToFloat(Vector256<int> a) => Vector256.ConvertToSingle(a);
    public static Vector256<float> AsFloat(Vector256<int> a) => a.AsSingle();
    public static Vector256<int> AsInt(Vector256<float> a) => a.AsInt32();
    public static Vector256<float> Gather(float* table, Vector256<int> index) => Avx2.GatherVector256(table, index, 4);
    public static Vector256<int> Gather(int* table, Vector256<int> index) => Avx2.GatherVector256(table, index, 4);
    public static Vector256<int> Gather(byte* table, Vector256<int> index)
        => Avx2.GatherVector256((int*)table, index, 1) & Vector256.Create(0xFF);

    public static int MaxLane(Vector256<int> a) => Lanes128.MaxLane(Vector128.Max(a.GetLower(), a.GetUpper()));
    public static float Sum(Vector256<float> a) => Vector256.Sum(a);
}
