namespace Peft.Quantization;

/// <summary>One lane: plain C#, on any machine, and for the ends that do not fill a vector.</summary>
internal unsafe struct Lanes1 : ILanes<float, int>
{
    public static int Count => 1;
    public static float Broadcast(float value) => value;
    public static int Broadcast(int value) => value;
    public static float Load(float* source) => *source;
    public static void Store(float* target, float value) => *target = value;
    public static int Load(int* source) => *source;
    public static int LoadUInt16(ushort* source) => *source;
    public static int LoadByte(byte* source) => *source;
    public static int LoadSByte(sbyte* source) => *source;
    public static void StoreUInt16(ushort* target, int value) => *target = (ushort)value;
    public static void StoreByte(byte* target, int value) => *target = (byte)value;
    public static float Add(float a, float b) => a + b;
    public static float Subtract(float a, float b) => a - b;
    public static float Multiply(float a, float b) => a * b;
    public static float Divide(float a, float b) => a / b;
    public static float SquareRoot(float a) => MathF.Sqrt(a);
    public static float MultiplyAdd(float a, float b, float c) => a * b + c;
    public static int Add(int a, int b) => a + b;
    public static int Subtract(int a, int b) => a - b;
    public static int And(int a, int b) => a & b;
    public static int Or(int a, int b) => a | b;
    public static int ShiftLeft(int a, int count) => a << count;
    public static int ShiftRight(int a, int count) => a >>> count;
    public static int Max(int a, int b) => Math.Max(a, b);
    public static int Min(int a, int b) => Math.Min(a, b);
    public static int GreaterThan(int a, int b) => a > b ? -1 : 0;
    public static int GreaterThan(float a, float b) => a > b ? -1 : 0;
    public static int LessThanOrEqual(float a, float b) => a <= b ? -1 : 0;
    public static int Select(int mask, int a, int b) => (mask & a) | (~mask & b);
    public static int RoundToInt(float a) => (int)MathF.Round(a, MidpointRounding.ToEven);
    public static float ToFloat(int a) => a;
    public static float AsFloat(int a) => BitConverter.Int32BitsToSingle(a);
    public static int AsInt(float a) => BitConverter.SingleToInt32Bits(a);
    public static float Gather(float* table, int index) => table[index];
    public static int Gather(int* table, int index) => table[index];
    public static int Gather(byte* table, int index) => table[index];
    public static int MaxLane(int a) => a;
    public static float Sum(float a) => a;
}
