namespace Peft.Llava;

/// <summary>On which side shorter rows of a batch are filled up when a rectangular form is asked for.</summary>
public enum PaddingSide
{
    /// <summary>After the row.</summary>
    Right,

    /// <summary>Before the row.</summary>
    Left,
}
