using System.Globalization;

namespace Peft.Core;

/// <summary>How a new adapter's factors start (PEFT's <c>init_lora_weights</c>): an open set, named by the word that stands in the file.</summary>
/// <param name="Name">The word: <c>true</c>, <c>false</c>, <c>gaussian</c>, <c>pissa</c>, …</param>
public readonly record struct LoraInit(string Name)
{
    private const string PissaPrefix = "pissa_niter_";

    /// <summary>A uniform in ±1/sqrt(fan in), B zero (<c>true</c>): the adapter starts without effect.</summary>
    public static LoraInit Default { get; } = new("true");

    /// <summary>A and B both random (<c>false</c>): the adapter has an effect from the start; for tests.</summary>
    public static LoraInit Random { get; } = new("false");

    /// <summary>A normal with deviation 1/r, B zero.</summary>
    public static LoraInit Gaussian { get; } = new("gaussian");

    /// <summary>A and B are the principal part of the base weight, which becomes the residual; by an exact SVD.</summary>
    public static LoraInit Pissa { get; } = new("pissa");

    /// <summary>A and B from the QR decomposition of the base weight, which becomes the residual.</summary>
    public static LoraInit Olora { get; } = new("olora");

    /// <summary>A and B with B A = 0, both not zero, from a random orthogonal matrix; the rank must be even.</summary>
    public static LoraInit Orthogonal { get; } = new("orthogonal");

    /// <summary>A and B make up for the error of quantising the base weight.</summary>
    public static LoraInit Loftq { get; } = new("loftq");

    /// <summary>PiSSA by a randomised SVD, faster and less exact.</summary>
    /// <param name="iterations">Power iterations, at least 0.</param>
    /// <returns>The value.</returns>
    public static LoraInit PissaFast(int iterations)
        => new(PissaPrefix + iterations.ToString(CultureInfo.InvariantCulture));

    /// <summary>The word, never null: an unset value is <see cref="Default"/>.</summary>
    public string Word => Name ?? Default.Name;

    /// <summary>Power iterations of a fast PiSSA; null if this is none.</summary>
    public int? PissaIterations
        => Word.StartsWith(PissaPrefix, StringComparison.Ordinal)
            && int.TryParse(Word.AsSpan(PissaPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : null;

    /// <summary>Whether making the adapter changes the base weight.</summary>
    public bool ChangesBase => this == Pissa || this == Olora || this == Loftq || PissaIterations is not null;

    /// <summary>Whether this library knows the word.</summary>
    public bool IsKnown => this == Default || this == Random || this == Gaussian || this == Orthogonal || ChangesBase;

    /// <inheritdoc/>
    public bool Equals(LoraInit other) => string.Equals(Word, other.Word, StringComparison.OrdinalIgnoreCase);

    /// <inheritdoc/>
    public override int GetHashCode() => StringComparer.OrdinalIgnoreCase.GetHashCode(Word);

    /// <inheritdoc/>
    public override string ToString() => Word;
}
