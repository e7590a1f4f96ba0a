namespace Peft.Llava;

/// <summary>One entry of a training conversation, as LLaVA's JSON has it.</summary>
/// <param name="From">Who speaks: <c>human</c> or <c>gpt</c>.</param>
/// <param name="Value">What is said.</param>
public sealed record ConversationTurn(string From, string Value);
