namespace Peft.Core;

/// <summary>Which biases of the base are trained beside LoRA (PEFT's <c>bias</c>).</summary>
/// <remarks>
/// A trained bias is the base's own tensor: it stays changed while the adapter is switched off, and a second adapter cannot be added
/// beside it.
/// </remarks>
public enum LoraBias
{
    /// <summary>None: <c>"none"</c>.</summary>
    None,

    /// <summary>Every parameter of the model whose name is or ends in <c>bias</c>: <c>"all"</c>.</summary>
    All,

    /// <summary>The biases of the layers that carry LoRA: <c>"lora_only"</c>.</summary>
    LoraOnly,
}
