using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// <c>silu(gate) · up</c>, the activation of LLaMA's MLP (Shazeer 2020, "GLU Variants Improve Transformer"), as one pass forward and one
/// backward. Nothing but its two inputs is kept.
/// </summary>
public static class SwiGlu
{
    /// <summary>Applies the activation.</summary>
    /// <param name="gate">(..., F), float32 or bfloat16.</param>
    /// <param name="up">The same shape and dtype.</param>
    /// <returns>The same shape and dtype, in the current dispose scope. In bfloat16 silu is rounded before the product, as by two operators.</returns>
    public static Tensor Apply(Tensor gate, Tensor up)
    {
        ArgumentNullException.ThrowIfNull(gate);
        ArgumentNullException.ThrowIfNull(up);
        if (gate.dtype == up.dtype && CpuTensor.IsKernelReady(gate) && CpuTensor.IsKernelReady(up) && gate.shape.SequenceEqual(up.shape))
            return is_grad_enabled() && (gate.requires_grad || up.requires_grad) ? Function.apply(gate, up) : Forward(gate, up);
        return Reference(gate, up);
    }

    /// <summary>The same by libtorch's operators; what the kernel is compared with, and what runs on other devices and dtypes.</summary>
    /// <param name="gate">(..., F).</param>
    /// <param name="up">(..., F).</param>
    /// <returns>(..., F), in the current dispose scope.</returns>
    public static Tensor Reference(Tensor gate, Tensor up)
    {
        using var activated = nn.functional.silu(gate);
        return activated * up;
    }

    private static Tensor Forward(Tensor gate, Tensor up)
    {
        var result = empty_like(gate);
        if (gate.dtype == ScalarType.BFloat16) Forward<BFloat16Element>(gate, up, result);
        else Forward<Float32Element>(gate, up, result);
        return result;
    }

    private static unsafe void Forward<E>(Tensor gate, Tensor up, Tensor result)
        where E : struct, IVectorElement
    {
        void* g = CpuTensor.Pointer(gate), u = CpuTensor.Pointer(up), y = CpuTensor.Pointer(result);
        VectorLoops.Run(new ForwardLoop<E>(g, u, y), gate.numel(), 4096);
    }

    private static unsafe void Backward<E>(Tensor gate, Tensor up, Tensor grad, Tensor gradGate, Tensor gradUp)
        where E : struct, IVectorElement
    {
        void* g = CpuTensor.Pointer(gate), u = CpuTensor.Pointer(up), dy = CpuTensor.Pointer(grad);
        void* dg = CpuTensor.Pointer(gradGate), du = CpuTensor.Pointer(gradUp);
        VectorLoops.Run(new BackwardLoop<E>(g, u, dy, dg, du), gate.numel(), 4096);
    }

    private readonly unsafe struct ForwardLoop<E>(void* g, void* u, void* y) : IVectorLoop
        where E : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            float* rounded = stackalloc float[1];
            long i = begin;
            for (; i + 16 <= end; i += 16)
            {
                var x = E.Load<V>(g, i);
                E.Store(y, i, E.Round(x / (V.All(1f) + VectorMath.Exp(-x))) * E.Load<V>(u, i));
            }
            for (; i < end; i++)
            {
                float x = E.Get(g, i);
                E.Set(rounded, 0, x / (1 + MathF.Exp(-x)));
                E.Set(y, i, E.Get(rounded, 0) * E.Get(u, i));
            }
        }
    }

    private readonly unsafe struct BackwardLoop<E>(void* g, void* u, void* dy, void* dg, void* du) : IVectorLoop
        where E : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            long i = begin;
            for (; i + 16 <= end; i += 16)
            {
                var x = E.Load<V>(g, i);
                var d = E.Load<V>(dy, i);
                var sigmoid = V.All(1f) / (V.All(1f) + VectorMath.Exp(-x));
                var silu = x * sigmoid;
                E.Store(du, i, d * silu);
                E.Store(dg, i, d * E.Load<V>(u, i) * (sigmoid + silu - silu * sigmoid));
            }
            for (; i < end; i++)
            {
                float x = E.Get(g, i), d = E.Get(dy, i);
                float sigmoid = 1 / (1 + MathF.Exp(-x));
                float silu = x * sigmoid;
                E.Set(du, i, d * silu);
                E.Set(dg, i, d * E.Get(u, i) * (sigmoid + silu - silu * sigmoid));
            }
        }
    }

    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => nameof(SwiGlu);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var (gate, up) = ((Tensor)vars[0], (Tensor)vars[1]);
            ctx.set_materialize_grads(false);
            ctx.save_for_backward([gate, up]);
            return Forward(gate, up);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            var saved = BackwardTensors.Saved(ctx);
            using var gate = saved[0];
            using var up = saved[1];
            using var grad = grad_output.contiguous();
            var gradGate = empty_like(gate);
            var gradUp = empty_like(up);
            if (gate.dtype == ScalarType.BFloat16) Backward<BFloat16Element>(gate, up, grad, gradGate, gradUp);
            else Backward<Float32Element>(gate, up, grad, gradGate, gradUp);
            return BackwardTensors.Return(grad_output, gradGate, gradUp);
        }
    }
}
