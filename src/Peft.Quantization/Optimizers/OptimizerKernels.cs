using System.Runtime.Intrinsics;
using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>Applies an update at the level of <see cref="KernelSelection"/>.</summary>
internal static unsafe class OptimizerKernels
{
    public static void Apply(OptimizerSlot slot, Tensor gradient, UpdateNumbers numbers)
    {
        var level = slot.Parameter.device_type == DeviceType.CPU ? KernelSelection.Current : KernelLevel.Reference;
        // A parameter that is a view with gaps goes through the plain path, which can write to it.
        if (level == KernelLevel.Reference || !slot.Parameter.is_contiguous())
        {
            Reference(slot, gradient, numbers);
            return;
        }
        using var scope = NewDisposeScope();
        var dense = gradient.contiguous();
        var (kind, gradientKind) = (FloatElements.KindOf(slot.Parameter.dtype), FloatElements.KindOf(dense.dtype));
        void* p = CpuTensor.Pointer(slot.Parameter);
        void* g = CpuTensor.Pointer(dense);
        void* state1 = CpuTensor.Pointer(slot.State1);
        void* state2 = slot.State2 is null ? null : CpuTensor.Pointer(slot.State2);
        float* absmax1 = slot.Absmax1 is null ? null : (float*)CpuTensor.Pointer(slot.Absmax1);
        float* absmax2 = slot.Absmax2 is null ? null : (float*)CpuTensor.Pointer(slot.Absmax2);
        long count = slot.Parameter.numel(), blocks = (count + OptimizerSlot.BlockSize - 1) / OptimizerSlot.BlockSize;
        switch (level)
        {
            case KernelLevel.Avx512: ParallelBlocks.Run(new OptimizerStep<Lanes512, Vector512<float>, Vector512<int>>(numbers, p, kind, g, gradientKind, count, state1, absmax1, state2, absmax2), blocks, OptimizerSlot.BlockSize); break;
            case KernelLevel.Avx2: ParallelBlocks.Run(new OptimizerStep<Lanes256, Vector256<float>, Vector256<int>>(numbers, p, kind, g, gradientKind, count, state1, absmax1, state2, absmax2), blocks, OptimizerSlot.BlockSize); break;
            case KernelLevel.Vector128: ParallelBlocks.Run(new OptimizerStep<Lanes128, Vector128<float>, Vector128<int>>(numbers, p, kind, g, gradientKind, count, state1, absmax1, state2, absmax2), blocks, OptimizerSlot.BlockSize); break;
            default: ParallelBlocks.Run(new OptimizerStep<Lanes1, float, int>(numbers, p, kind, g, gradientKind, count, state1, absmax1, state2, absmax2), blocks, OptimizerSlot.BlockSize); break;
        }
        GC.KeepAlive(slot);
        GC.KeepAlive(dense);
    }

    /// <summary>The same in plain tensor operations, on any device.</summary>
    private static void Reference(OptimizerSlot slot, Tensor gradient, UpdateNumbers n)
    {
        using var scope = NewDisposeScope();
        var p = slot.Parameter.to(ScalarType.Float32);
        var g = gradient.to(ScalarType.Float32) * (float)n.GradientScale;
        var m = Read(slot.State1, slot.Absmax1, EightBitMap.DynamicSigned);
        switch (n.Rule)
        {
            case UpdateRule.Adam:
                m = m * (float)n.Beta1 + g * (float)(1 - n.Beta1);
                var v = Read(slot.State2!, slot.Absmax2, EightBitMap.DynamicUnsigned) * (float)n.Beta2 + g * (float)(1 - n.Beta2) * g;
                p = p * n.Keep - m * n.CorrectedRate / (v.sqrt() / n.Correction2 + (float)n.Epsilon);
                Keep(slot.State2!, slot.Absmax2, EightBitMap.DynamicUnsigned, v);
                break;
            case UpdateRule.Lion:
                p = p * n.Keep - (m * (float)n.Beta1 + g * (float)(1 - n.Beta1)).sign() * (float)n.Rate;
                m = m * (float)n.Beta2 + g * (float)(1 - n.Beta2);
                break;
            default:
                g = g + p * (float)n.WeightDecay;
                m = m * (n.Step == 1 ? 0f : (float)n.Beta1) + g;
                p = p - m * (float)n.Rate;
                break;
        }
        slot.Parameter.copy_(p);
        Keep(slot.State1, slot.Absmax1, EightBitMap.DynamicSigned, m);
    }

    private static Tensor Read(Tensor state, Tensor? absmax, EightBitMap map)
        => absmax is null ? state : new BlockwiseCodec(map, OptimizerSlot.BlockSize).Decode(state, absmax, ScalarType.Float32);

    private static void Keep(Tensor state, Tensor? absmax, EightBitMap map, Tensor values)
    {
        if (absmax is null)
        {
            state.copy_(values);
            return;
        }
        var (codes, maxima) = new BlockwiseCodec(map, OptimizerSlot.BlockSize).Encode(values);
        state.copy_(codes);
        absmax.copy_(maxima);
    }
}
