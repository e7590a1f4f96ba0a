using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Root-mean-square layer normalisation (Zhang and Sennrich 2019) with LLaMA's order of roundings: the normalised value is computed in
/// float32, rounded to the input's dtype, and then multiplied by the weight in the promoted dtype of both.
/// </summary>
public static class RmsNormalization
{
    /// <summary>Normalises the rows.</summary>
    /// <param name="input">(..., D), float32 or bfloat16.</param>
    /// <param name="weight">(D). A float32 weight with bfloat16 input gives a float32 result, as in transformers.</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <returns>(..., D) in the promoted dtype of input and weight, in the current dispose scope.</returns>
    public static Tensor Apply(Tensor input, Tensor weight, double epsilon)
    {
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(weight);
        bool ready = CpuTensor.IsKernelReady(input) && CpuTensor.IsKernelReady(weight) && !weight.requires_grad;
        if (!ready) return Reference(input, weight, epsilon);
        if (is_grad_enabled() && input.requires_grad) return Function.apply(input, weight, epsilon);
        using var scale = empty([Rows(input)], ScalarType.Float32);
        return Forward(input, weight, epsilon, scale);
    }

    /// <summary>The same by libtorch's operators; also the way with a trained weight.</summary>
    /// <param name="input">(..., D).</param>
    /// <param name="weight">(D).</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <returns>(..., D), in the current dispose scope.</returns>
    public static Tensor Reference(Tensor input, Tensor weight, double epsilon)
    {
        using var scope = NewDisposeScope();
        var x = input.to(ScalarType.Float32);
        var variance = x.square().mean([-1], keepdim: true);
        var normalised = (x * (variance + epsilon).rsqrt()).to(input.dtype);
        return (normalised * weight).MoveToOuterDisposeScope();
    }

    private static long Rows(Tensor input) => input.numel() / input.shape[^1];

    private static Tensor Forward(Tensor input, Tensor weight, double epsilon, Tensor scale)
    {
        var result = empty(input.shape, promote_types(input.dtype, weight.dtype));
        switch (input.dtype, weight.dtype)
        {
            case (ScalarType.BFloat16, ScalarType.BFloat16): Forward<BFloat16Element, BFloat16Element, BFloat16Element>(input, weight, epsilon, result, scale); break;
            case (ScalarType.BFloat16, _): Forward<BFloat16Element, Float32Element, Float32Element>(input, weight, epsilon, result, scale); break;
            case (_, ScalarType.BFloat16): Forward<Float32Element, BFloat16Element, Float32Element>(input, weight, epsilon, result, scale); break;
            default: Forward<Float32Element, Float32Element, Float32Element>(input, weight, epsilon, result, scale); break;
        }
        return result;
    }

    private static unsafe void Forward<X, W, Y>(Tensor input, Tensor weight, double epsilon, Tensor result, Tensor scale)
        where X : struct, IVectorElement
        where W : struct, IVectorElement
        where Y : struct, IVectorElement
    {
        long width = input.shape[^1];
        void* x = CpuTensor.Pointer(input), w = CpuTensor.Pointer(weight), y = CpuTensor.Pointer(result);
        float* r = (float*)CpuTensor.Pointer(scale);
        VectorLoops.Run(new ForwardLoop<X, W, Y>(x, w, y, r, width, (float)epsilon), Rows(input), 1);
    }

    private static unsafe void Backward<X, W, Y>(Tensor input, Tensor weight, Tensor scale, Tensor grad, Tensor gradInput)
        where X : struct, IVectorElement
        where W : struct, IVectorElement
        where Y : struct, IVectorElement
    {
        long width = input.shape[^1];
        void* x = CpuTensor.Pointer(input), w = CpuTensor.Pointer(weight), dy = CpuTensor.Pointer(grad), dx = CpuTensor.Pointer(gradInput);
        float* r = (float*)CpuTensor.Pointer(scale);
        VectorLoops.Run(new BackwardLoop<X, W, Y>(x, w, dy, dx, r, width), Rows(input), 1);
    }

    private readonly unsafe struct ForwardLoop<X, W, Y>(void* x, void* w, void* y, float* r, long width, float epsilon) : IVectorLoop
        where X : struct, IVectorElement
        where W : struct, IVectorElement
        where Y : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            float* rounded = stackalloc float[1];
            for (long row = begin; row < end; row++)
            {
                long start = row * width;
                var sums = default(V);
                long i = 0;
                for (; i + 16 <= width; i += 16)
                {
                    var v = X.Load<V>(x, start + i);
                    sums += v * v;
                }
                float sum = V.Sum(sums);
                for (; i < width; i++) sum += X.Get(x, start + i) * X.Get(x, start + i);
                float factor = 1 / MathF.Sqrt(sum / width + epsilon);
                r[row] = factor;
                for (i = 0; i + 16 <= width; i += 16)
                {
                    Y.Store(y, start + i, X.Round(X.Load<V>(x, start + i) * factor) * W.Load<V>(w, i));
                }
                for (; i < width; i++)
                {
                    X.Set(rounded, 0, X.Get(x, start + i) * factor);
                    Y.Set(y, start + i, X.Get(rounded, 0) * W.Get(w, i));
                }
            }
        }
    }

    private readonly unsafe struct BackwardLoop<X, W, Y>(void* x, void* w, void* dy, void* dx, float* r, long width) : IVectorLoop
        where X : struct, IVectorElement
        where W : struct, IVectorElement
        where Y : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            for (long row = begin; row < end; row++)
            {
                long start = row * width;
                float factor = r[row];
                var products = default(V);
                long i = 0;
                for (; i + 16 <= width; i += 16)
                    products += Y.Load<V>(dy, start + i) * W.Load<V>(w, i) * X.Load<V>(x, start + i);
                float dot = V.Sum(products);
                for (; i < width; i++) dot += Y.Get(dy, start + i) * W.Get(w, i) * X.Get(x, start + i);
                float correction = dot / width * factor * factor * factor;
                for (i = 0; i + 16 <= width; i += 16)
                    X.Store(dx, start + i, Y.Load<V>(dy, start + i) * W.Load<V>(w, i) * factor - X.Load<V>(x, start + i) * correction);
                for (; i < width; i++)
                    X.Set(dx, start + i, Y.Get(dy, start + i) * W.Get(w, i) * factor - X.Get(x, start + i) * correction);
            }
        }
    }

    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => nameof(RmsNormalization);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var (input, weight) = ((Tensor)vars[0], (Tensor)vars[1]);
            ctx.set_materialize_grads(false);
            var scale = empty([Rows(input)], ScalarType.Float32);
            ctx.save_for_backward([input, weight, scale]);
            return Forward(input, weight, (double)vars[2], scale);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var scope = NewDisposeScope();
            var saved = BackwardTensors.Saved(ctx);
            var (input, weight, scale) = (saved[0], saved[1], saved[2]);
            var grad = grad_output.contiguous();
            var gradInput = empty_like(input);
            switch (input.dtype, weight.dtype)
            {
                case (ScalarType.BFloat16, ScalarType.BFloat16): Backward<BFloat16Element, BFloat16Element, BFloat16Element>(input, weight, scale, grad, gradInput); break;
                case (ScalarType.BFloat16, _): Backward<BFloat16Element, Float32Element, Float32Element>(input, weight, scale, grad, gradInput); break;
                case (_, ScalarType.BFloat16): Backward<Float32Element, BFloat16Element, Float32Element>(input, weight, scale, grad, gradInput); break;
                default: Backward<Float32Element, Float32Element, Float32Element>(input, weight, scale, grad, gradInput); break;
            }
            return BackwardTensors.Return(grad_output, gradInput, null, null);
        }
    }
}
