using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>One adapter's tensors in one layer. They belong to the layer.</summary>
public sealed class LoraAdapter
{
    internal LoraAdapter(string name, LoraConfig config, int rank, double alpha, Parameter a, Parameter b, Parameter? bBias)
    {
        Name = name;
        Config = config;
        Rank = rank;
        Alpha = alpha;
        Scaling = InitialScaling = config.ScalingOf(rank, alpha);
        A = a;
        B = b;
        BBias = bBias;
    }

    /// <summary>The adapter's name.</summary>
    public string Name { get; internal set; }

    /// <summary>The settings it was made with.</summary>
    public LoraConfig Config { get; internal set; }

    /// <summary>r in this layer.</summary>
    public int Rank { get; }

    /// <summary>alpha in this layer.</summary>
    public double Alpha { get; internal set; }

    /// <summary>The factor of B A at present.</summary>
    public double Scaling { get; internal set; }

    /// <summary>The factor that rank and alpha give.</summary>
    public double InitialScaling { get; internal set; }

    /// <summary>(R, in); (R, V) for an embedding; (R, in, kh, kw) for a convolution.</summary>
    public Parameter A { get; internal set; }

    /// <summary>(out, R); (D, R) for an embedding; (out, R / groups, 1, 1) for a convolution.</summary>
    public Parameter B { get; internal set; }

    /// <summary>(out), B's own bias, or null.</summary>
    public Parameter? BBias { get; internal set; }

    /// <summary>DoRA's magnitude, one for each output, or null; (1, out, 1, 1) for a convolution.</summary>
    public Parameter? Magnitude { get; internal set; }

    /// <summary>A and B as an init that changes the base made them; null for other inits.</summary>
    internal (Tensor A, Tensor B)? Initial { get; set; }

    /// <summary>Ties the factors to those of another layer again, after a move made new parameters of both; null where nothing is tied.</summary>
    internal Action? Retie { get; set; }

    internal bool IsPlain => BBias is null && Magnitude is null;

    internal IEnumerable<Parameter> Parameters
    {
        get
        {
            yield return A;
            yield return B;
            if (BBias is not null) yield return BBias;
            if (Magnitude is not null) yield return Magnitude;
        }
    }

    internal bool IsFinite()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        return Parameters.All(p => p.isfinite().all().ToBoolean());
    }
}
