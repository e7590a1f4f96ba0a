namespace Peft.Core;

/// <summary>How the matrices of a product lie in memory, and what becomes of the result.</summary>
[Flags]
public enum ProductForm
{
    /// <summary><c>result = left · right</c>, as they lie.</summary>
    None = 0,

    /// <summary>The left matrix lies transposed: (depth, rows).</summary>
    LeftTransposed = 1,

    /// <summary>The right matrix lies transposed: (columns, depth).</summary>
    RightTransposed = 2,

    /// <summary>The product is added to the result.</summary>
    Add = 4,
}
