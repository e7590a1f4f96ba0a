namespace Peft.Quantization;

/// <summary>W x for one vector and a 4-bit W: a block's codes are expanded in the first-level cache and summed in fp32. Blocks are rows.</summary>
internal readonly unsafe struct FourBitMultiply<L, F, I>(
    byte* packed, ScalePointers scales, long columns, int blockSize, FourBitTable table, ElementKind through, float* input, float* target) : IBlockJob
    where L : struct, ILanes<F, I>
{
    public void Run(long first, long end)
    {
        float* products = stackalloc float[16];
        float* weights = stackalloc float[blockSize];
        for (long row = first; row < end; row++)
        {
            F sum = L.Broadcast(0f), second = L.Broadcast(0f);
            float rest = 0f;
            long position = row * columns, stop = position + columns;
            for (float* x = input; position < stop;)
            {
                long block = position / blockSize;
                int n = (int)(Math.Min((block + 1) * blockSize, stop) - position);
                FourBitDecode<L, F, I>.Products(table.CodesPointer, scales.Of(block), through, ElementKind.Float32, products);
                NibbleLookup.Expand32<L>(packed + position / 2, n, products, weights);
                int i = 0;
                for (; i <= n - 2 * L.Count; i += 2 * L.Count)
                {
                    sum = L.MultiplyAdd(L.Load(weights + i), L.Load(x + i), sum);
                    second = L.MultiplyAdd(L.Load(weights + i + L.Count), L.Load(x + i + L.Count), second);
                }
                for (; i < n; i++) rest += weights[i] * x[i];
                position += n;
                x += n;
            }
            target[row] = L.Sum(L.Add(sum, second)) + rest;
        }
    }
}
