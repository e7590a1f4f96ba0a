using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Quantization;

/// <summary>Sixteen lanes: AVX-512 (F, BW, VL).</summary>
internal unsafe struct Lanes512 : ILanes<Vector512<float>, Vector512<int>>
{
    public static int Count => 16;
    public static Vector512<float> Broadcast(float value) => Vector512.Create(value);
    public static Vector512<int> Broadcast(int value) => Vector512.Create(value);
    public static Vector512<float> Load(float* source) => Vector512.Load(source);
    public static void Store(float* target, Vector512<float> value) => value.Store(target);
    public static Vector512<int> Load(int* source) => Vector512.Load(source);
    public static Vector512<int> LoadUInt16(ushort* source) => Avx512F.ConvertToVector512Int32(Vector256.Load(source));
    public static Vector512<int> LoadByte(byte* source) => Avx512F.ConvertToVector512Int32(Vector128.Load(source));
    public static Vector512<int> LoadSByte(sbyte* source) => Avx512F.ConvertToVector512Int32(Vector128.Load(source));
    public static void StoreUInt16(ushort* target, Vector512<int> value) => Avx512F.ConvertToVector256UInt16(value).Store(target);
    public static void StoreByte(byte* target, Vector512<int> value) => Avx512F.ConvertToVector128Byte(value).Store(target);
    public static Vector512<float> Add(Vector512<float> a, Vector512<float> b) => a + b;
    public static Vector512<float> Subtract(Vector512<float> a, Vector512<float> b) => a - b;
    public static Vector512<float> Multiply(Vector512<float> a, Vector512<float> b) => a * b;
    public static Vector512<float> Divide(Vector512<float> a, Vector512<float> b) => a / b;
    public static Vector512<float> SquareRoot(Vector512<float> a) => Vector512.Sqrt(a);
    public static Vector512<float> MultiplyAdd(Vector512<float> a, Vector512<float> b, Vector512<float> c) => Avx512F.FusedMultiplyAdd(a, b, c);
    public static Vector512<int> Add(Vector512<int> a, Vector512<int> b) => a + b;
    public static Vector512<int> Subtract(Vector512<int> a, Vector512<int> b) => a - b;
    public static Vector512<int> And(Vector512<int> a, Vector512<int> b) => a & b;
    public static Vector512<int> Or(Vector512<int> a, Vector512<int> b) => a | b;
    public static Vector512<int> ShiftLeft(Vector512<int> a, int count) => a << count;
    public static Vector512<int> ShiftRight(Vector512<int> a, int count) => a >>> count;
    public static Vector512<int> Max(Vector512<int> a, Vector512<int> b) => Vector512.Max(a, b);
    public static Vector512<int> Min(Vector512<int> a, Vector512<int> b) => Vector512.Min(a, b);
    public static Vector512<int> GreaterThan(Vector512<int> a, Vector512<int> b) => Vector512.GreaterThan(a, b);
    public static Vector512<int> GreaterThan(Vector512<float> a, Vector512<float> b) => Vector512.GreaterThan(a, b).AsInt32();
    public static Vector512<int> LessThanOrEqual(Vector512<float> a, Vector512<float> b) => Vector512.LessThanOrEqual(a, b).AsInt32();
    public static Vector512<int> Select(Vector512<int> mask, Vector512<int> a, Vector512<int> b) => Vector512.ConditionalSelect(mask, a, b);
    public static Vector512<int> RoundToInt(Vector512<float> a) => Avx512F.ConvertToVector512Int32(a);
    public static Vector512<float> ToFloat(Vector512<int> a) => Vector512.ConvertToSingle(a);
    public static Vector512<float> AsFloat(Vector512<int> a) => a.AsSingle();
    public static Vector512<int> AsInt(Vector512<float> a) => a.AsInt32();

    // .NET has no 16-lane gather; two 8-lane ones cost the same loads.
    public static Vector512<float> Gather(float* table, Vector512<int> index)
        => Vector512.Create(Avx2.GatherVector256(table, index.GetLower(), 4), Avx2.GatherVector256(table, index.GetUpper(), 4));

    public static Vector512<int> Gather(int* table, Vector512<int> index)
        => Vector512.Create(Avx2.GatherVector256(table, index.GetLower(), 4), Avx2.GatherVector256(table, index.GetUpper(), 4));

    public static Vector512<int> Gather(byte* table, Vector512<int> index)
        => Vector512.Create(
            Avx2.GatherVector256((int*)table, index.GetLower(), 1), Avx2.GatherVector256((int*)table, index.GetUpper(), 1)) & Vector512.Create(0xFF);

    public static int MaxLane(Vector512<int> a) => Lanes256.MaxLane(Vector256.Max(a.GetLower(), a.GetUpper()));
    public static float Sum(Vector512<float> a) => Vector512.Sum(a);
}
